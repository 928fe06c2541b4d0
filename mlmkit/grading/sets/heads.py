"""Tasks on the heads and losses: what is read, what is shared, both losses, one sum, one update."""

from __future__ import annotations

import numpy as np

from mlmkit.grading.questions import choice, match, order, several
from mlmkit.grading.sets.heads_code import AVERAGE, NSP, SCORES
from mlmkit.grading.sets.heads_numbers import (
    draw_costs,
    draw_first_loss,
    draw_plateaus,
    draw_pot,
    draw_two_updates,
)
from mlmkit.grading.sets.heads_sum import BOTH, GRADIENTS
from mlmkit.grading.tasks import ConceptTask, Question

# 10.5 Which gradients are zero

SHARED = {
    "the token table E": "it feeds the encoder, which both losses reach",
    "the position embeddings": "they feed the encoder, which both losses reach",
    "the matrices W_Q of the encoder's first layer": "the encoder is shared, and each of the losses reaches it",
    "the feed-forward network of the encoder's first layer": "the encoder is shared, and each of the losses reaches it",
    "the layer norms of the encoder's first layer": "the encoder is shared, and each of the losses reaches it",
}
MLM_PARTS = (
    "the dense layer of the MLM head",
    "the layer norm of the MLM head",
    "the bias b of the output layer",
)
NSP_PARTS = ("the pooler of the NSP head (W₂)", "the matrix W₃ that gives the two scores of the NSP head")


def _draw_zeros(rng: np.random.Generator) -> Question:
    nothing_selected = bool(rng.integers(2))
    B = int(rng.choice([2, 4, 8]))
    shared = [list(SHARED)[i] for i in rng.permutation(len(SHARED))[:2]]
    words = [MLM_PARTS[i] for i in sorted(rng.permutation(3)[:2])]
    zero, alive = (words, list(NSP_PARTS)) if nothing_selected else (list(NSP_PARTS), words)
    if nothing_selected:
        case = f"A batch of {B} pairs in which no word happens to be selected, with w = 1"
        missed = "no row of hidden states goes through the MLM head, so nothing of it gets a gradient"
        kept = "the sentence relation is asked as always, and it reaches the NSP head"
        through = " Here NSP alone does"
    else:
        case = f"A batch of {B} pairs with selected words, but w = 0"
        missed = "NSP counts 0 times, and no other loss reaches the NSP head"
        kept = "the MLM loss counts as always, and it reaches its own head"
        through = " Here MLM alone does"
    return several(
        f"{case}. Which of these parts get a gradient of exactly 0 from the total loss, MLM + w · NSP?",
        rng,
        right={part: missed for part in zero},
        wrong={**{part: kept for part in alive}, **{part: SHARED[part] + "." + through for part in shared}},
        why="The two losses meet in the encoder and nowhere else: without one of them only its own head stands still.",
    )


# 10.12 One training iteration

STEPS = (
    "choose A(x) and build x̄ from it",
    "look up and add token, position and segment embeddings of x̄",
    "send the embeddings through the encoder, once",
    "let the MLM head read h_i at the selected positions, and the NSP head h_cls",
    "take the mean loss over the N selected tokens, and the mean loss over the B pairs",
    "add the two losses",
    "clear the old gradients, and go back from the sum, once",
    "let the optimizer make one update of all parameters",
)
BECAUSE = {
    (0, 1): "what is embedded is x̄: the words are hidden before they are looked up",
    (0, 2): "the encoder must not see the hidden words: x̄ comes before it",
    (1, 2): "the encoder takes vectors, so the embeddings come first",
    (2, 3): "the heads read hidden states, which are what comes out of the encoder",
    (3, 4): "there is no loss before the heads have given their scores",
    (4, 5): "each loss has its own mean; what is added are the two means",
    (5, 6): "the backward pass starts from the sum, so the sum comes first",
    (6, 7): "the optimizer uses the gradients: an update before the backward pass would use old ones or none",
    (5, 7): "there is one update, after the sum: an update before it would leave out one of the losses",
}


def _draw_iteration(rng: np.random.Generator) -> Question:
    dropped = {int(i) for i in rng.choice([0, 1, 2, 3, 4], int(rng.integers(1, 3)), replace=False)}
    kept = [i for i in range(len(STEPS)) if i not in dropped]
    place = {old: new for new, old in enumerate(kept)}
    because = {(place[i], place[j]): says for (i, j), says in BECAUSE.items() if i in place and j in place}
    return order(
        "One iteration of BERT's training, from a batch of pairs to new parameters (not every step is listed). Put the "
        "steps in order.",
        rng,
        steps=[STEPS[i] for i in kept],
        because=because,
        why="One forward pass, two heads, two means, one sum, one backward pass, one update.",
    )


# 10.13 One update or two


def _draw_updates(rng: np.random.Generator) -> Question:
    size, name = int(rng.choice([16, 32, 64, 128])), ["Adam", "AdamW"][int(rng.integers(2))]
    kind = int(rng.integers(3))
    if kind == 0:
        return _for_each_loss(rng, size)
    if kind == 1:
        return choice(
            f"For a batch of {size} pairs a program runs one forward pass, calls "
            "`losses.mlm.backward(retain_graph=True)`, then `losses.nsp.backward()`, and then `optimizer.step()` "
            "once. Compared with `losses.total.backward()` and one step:",
            rng,
            right="it makes the same update: PyTorch adds to `.grad`, and the sum of the gradients is that of the sum",
            wrong={
                "the second call overwrites the gradient of the first, and only NSP is learned": "`backward` does not "
                "overwrite: it adds to what stands in `.grad`",
                "it makes two updates, first for MLM, then for NSP": "a backward pass is no update. Parameters "
                "change in `optimizer.step()`, and that is called once",
                "it makes an update of half the size, the average of the two": "gradients are added, not averaged",
            },
            why="The number of backward calls is not the question. The number of updates is, and it is one.",
        )
    w = [0.5, 0.1, 0.05, 0.01][int(rng.integers(4))]
    return choice(
        f"A program has two {name} optimizers for the same network. For each batch the one makes an update with the "
        f"gradient of the MLM loss, then the other with that of w · NSP, w = {w}. How long is the first update for "
        "NSP, compared with w = 1?",
        rng,
        right="About as long: the optimizer divides each gradient by its own recent size, and the factor cancels",
        wrong={
            f"It is {w} times as long: so w is a dial for the weight of NSP": "that would hold for plain gradient "
            f"descent. {name} divides by the size of the gradients, so that a factor before the loss cancels",
            f"It is {w**2:g} times as long, since {name} squares the gradients": f"{name} squares them to measure "
            "their size, and then divides by the root: the factor cancels",
            f"It is {1 / w:g} times as long": "the factor neither shrinks nor stretches the step: it stands above "
            "and below the line, and cancels",
        },
        why="With an update for each loss there is no dial. In the sum, w decides how much NSP counts beside MLM.",
    )


def _for_each_loss(rng: np.random.Generator, size: int) -> Question:
    first, second = [("MLM", "NSP"), ("NSP", "MLM")][int(rng.integers(2))]
    return choice(
        f"A program takes a batch of {size} pairs, runs a forward pass, makes an update for the {first} loss, runs "
        f"the batch through again, and makes an update for the {second} loss. Compared with BERT's one update of the "
        "sum:",
        rng,
        right=f"the {second} gradient is taken at other parameters, each batch costs two passes, and the order "
        "changes the result",
        wrong={
            "the result is the same, since the gradient of the sum is the sum of the gradients": "that holds for "
            f"gradients at the same parameters. The {first} update has moved them before the {second} gradient is "
            "taken",
            "this is what BERT does: two tasks, two heads, and so two updates": "BERT adds the losses and makes one "
            "update. The heads are two, but the encoder is one, and both losses move it",
            f"only the {second} head is trained by the second update, so that the two do not touch each other": "both "
            "losses reach the encoder, so both updates move it",
            "it crashes, because PyTorch allows only one backward pass": "with a second forward pass there is a "
            "second graph: it runs and even learns, which is why the mistake survives",
        },
        why="BERT computes both losses from one forward pass, adds them, and makes one update.",
    )


# 10.14 Which task is it

FACTS = {
    "It reads the hidden states at the selected positions": "MLM",
    "It predicts one of the V tokens of the vocabulary": "MLM",
    "Its loss is a mean over the N selected tokens": "MLM",
    "It teaches, above all, what a word means among its neighbors": "MLM",
    "It reads one hidden state of each pair, that of [CLS]": "NSP",
    "It predicts one of two relations": "NSP",
    "Its loss is a mean over the B pairs": "NSP",
    "It teaches, above all, whether two texts belong together": "NSP",
    "Its gradient reaches the layers of the encoder": "both",
    "Its labels are made from the text itself": "both",
    "It reads the embeddings e_i directly, past the encoder": "neither",
    "It needs labels that people have written": "neither",
}
CONFUSED = {
    ("It reads one hidden state of each pair, that of [CLS]", "MLM"): "the MLM head reads the state at each selected "
    "position; from [CLS] alone it could not tell two blanks of a sentence apart",
    ("It reads the hidden states at the selected positions", "NSP"): "NSP does not care which words were "
    "selected; it reads position 0",
    ("It reads one hidden state of each pair, that of [CLS]", "both"): "[CLS] itself is never selected; MLM reads "
    "elsewhere",
    ("Its gradient reaches the layers of the encoder", "MLM"): "the state of [CLS] comes out of the encoder "
    "too, so NSP trains it as well",
    ("Its gradient reaches the layers of the encoder", "NSP"): "the states at the selected positions come "
    "out of the encoder too, so MLM trains it as well",
    ("Its labels are made from the text itself", "MLM"): "which sentence followed is also known from the text itself",
    ("Its labels are made from the text itself", "NSP"): "the hidden words are also known from the text itself",
    ("It reads the embeddings e_i directly, past the encoder", "MLM"): "at a blank e_i is the vector of [MASK] and its "
    "place: it knows nothing of the sentence. MLM reads h_i",
    ("It needs labels that people have written", "NSP"): "the order of the sentences in a document is label enough",
}


def _draw_which(rng: np.random.Generator) -> Question:
    names = list(FACTS)
    groups = {task: [name for name in names if FACTS[name] == task] for task in ("MLM", "NSP", "both", "neither")}
    chosen = [
        groups[task][int(i)]
        for task, many in [("MLM", 2), ("NSP", 2), ("both", 1), ("neither", 1)]
        for i in rng.permutation(len(groups[task]))[:many]
    ]
    chosen = [chosen[i] for i in rng.permutation(len(chosen))]
    return match(
        "For each sentence: does it hold for masked language modeling (MLM), for next-sentence prediction (NSP), for "
        "both, or for neither?",
        rng,
        pairs={name: FACTS[name] for name in chosen},
        wrong=CONFUSED,
        why="MLM works on words at the selected positions, NSP on the pair through [CLS]. What they share is the "
        "encoder.",
    )


# 10.15 What the sentence head reads


def _draw_reads(rng: np.random.Generator) -> Question:
    S, longer = int(rng.choice([24, 32, 48])), int(rng.choice([64, 96, 128]))
    H = int(rng.choice([64, 128, 256]))
    return choice(
        f"H = {H}. In training all pairs had the length {S}; now one comes with {longer} positions. Which vector "
        "does BERT's sentence head read, so that it works at both lengths and still knows A and B?",
        rng,
        right=f"the hidden state of [CLS], {H} numbers",
        wrong={
            f"all hidden states laid end to end, {S * H} numbers": f"such a head has weights for {S * H} inputs, and "
            f"fails at {longer * H}. It is not needed either: [CLS] has read all positions, through attention",
            f"the embedding e₀ of [CLS], {H} numbers": "e₀ goes into the encoder, and is the same for every pair: it "
            "knows neither A nor B",
            "one answer from every position, and then the mean of the losses": "a pair has one label. BERT asks one "
            "position for it, and the mean runs over the B pairs",
            f"the hidden state of the last position, {H} numbers": "in a batch the last position is often padding; "
            "and BERT has agreed on position 0, which every pair has",
        },
        why="h_cls has read every real position in every layer, and it has the same size at any length.",
    )


TASKS = (
    ConceptTask(id="10.1", title="Two plateaus", points=2, concepts=("C21",), draw=draw_plateaus, computed=True),
    ConceptTask(id="10.2", title="The first loss", points=2, concepts=("C21",), draw=draw_first_loss, computed=True),
    ConceptTask(id="10.3", title="What scoring costs", points=2, concepts=("C21",), draw=draw_costs, computed=True),
    AVERAGE,
    ConceptTask(id="10.5", title="Who is not reached", points=2, concepts=("C25",), draw=_draw_zeros),
    ConceptTask(
        id="10.6", title="One update and two", points=3, concepts=("C25",), draw=draw_two_updates, computed=True
    ),
    ConceptTask(id="10.7", title="One pot", points=2, concepts=("C25", "C10"), draw=draw_pot, computed=True),
    SCORES,
    NSP,
    BOTH,
    GRADIENTS,
    ConceptTask(id="10.12", title="One iteration", points=2, concepts=("C25", "C21"), draw=_draw_iteration),
    ConceptTask(id="10.13", title="One update or two", points=2, concepts=("C25",), draw=_draw_updates),
    ConceptTask(id="10.14", title="Which task is it", points=2, concepts=("C24", "C26"), draw=_draw_which),
    ConceptTask(id="10.15", title="What the sentence head reads", points=1, concepts=("C24",), draw=_draw_reads),
)
