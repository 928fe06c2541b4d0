"""Questions in words on sequence models: roles of symbols, kinds of output, patterns, gaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlmkit.grading.questions import choice, match
from mlmkit.grading.tasks import Question


def _some(rng: np.random.Generator, pool: Sequence[Any], count: int) -> list[Any]:
    """Draw some different ones."""
    return [pool[i] for i in rng.permutation(len(pool))[:count]]


def _mixed(rng: np.random.Generator, pairs: Mapping[str, str]) -> dict[str, str]:
    """The same pairs in another order."""
    return dict(_some(rng, list(pairs.items()), len(pairs)))


# 01.2 Which kind of output

LABEL = "one label for the whole text"
DISTRIBUTION = "one distribution: a probability for each token of the vocabulary, at one position"
VECTORS = "one vector for each token of the text"
SEQUENCE = "a sequence: new tokens, one after the other"
SYSTEMS = {
    LABEL: (
        "a spam filter for e-mails",
        "a program that says in which of 40 languages a page is written",
        "a service that sorts complaints into urgent and not urgent",
        "a test whether the second of two sentences follows the first",
    ),
    DISTRIBUTION: (
        "a keyboard that shows how probable each word of its list is as the next one",
        "a study of how surprising the word at one gap is, given all other words",
        "BERT, asked what may stand behind one [MASK], and how surely",
        "a proofreader that ranks all words it knows by how well they fit at one place",
    ),
    VECTORS: (
        "a system that marks each word of a text as part of a name or not",
        "a search engine that compares two texts word by word, in context",
        "a program that finds for each word its grammatical class",
        "a tool that tells the meanings of “bank” apart by comparing its occurrences",
    ),
    SEQUENCE: (
        "a chat program",
        "a translator from English into Dutch",
        "a program that writes a summary of an article",
        "a system that continues the first line of a story",
    ),
}
INSTEAD = {
    LABEL: "one label speaks about the text as a whole, and here more than that is asked",
    DISTRIBUTION: "a distribution tells how probable each token is at one position: here something else is asked",
    VECTORS: "vectors for all tokens are no answer yet here: something still has to be read out of them",
    SEQUENCE: "a sequence model does not always output text: here nothing has to be written",
}


def draw_outputs(rng: np.random.Generator) -> Question:
    """Ask which kind of output each system needs."""
    pairs = {str(rng.choice(systems)): kind for kind, systems in SYSTEMS.items()}
    again = [LABEL, DISTRIBUTION, VECTORS][int(rng.integers(3))]
    pairs[next(system for system in _some(rng, SYSTEMS[again], 4) if system not in pairs)] = again
    pairs = _mixed(rng, pairs)
    return match(
        "Each of these systems is built on a sequence model. Which output does it need from it?",
        rng,
        pairs=pairs,
        wrong={(system, kind): INSTEAD[kind] for system, own in pairs.items() for kind in INSTEAD if kind != own},
        why="The kind of output follows from the question that is asked; only where something is written is it text.",
    )


# 01.8 Symbols and their roles

INPUT, OUTPUT, THETA, RULE = "the input, x₀ … x_m", "the output, o", "the parameters, θ", "the function g"
MODELS = (
    (
        "judges e-mails",
        "the e-mail",
        "“spam” and its probability",
        "the computation: embed, attend, add, layer by layer",
    ),
    (
        "names the hidden word of a sentence",
        "the sentence",
        "a probability for each token",
        "the computation “encode, multiply, take a softmax”",
    ),
    (
        "writes the next word of a message",
        "the message",
        "a probability for each next word",
        "the computation, from left to right through 12 layers",
    ),
    (
        "marks names in the news",
        "the article",
        "a vector for each token",
        "the computation, with attention to both sides",
    ),
    (
        "tells languages apart",
        "the page",
        "one of 40 languages",
        "the computation “average the vectors, multiply, take the largest”",
    ),
    ("compares questions", "the question", "the vector of [CLS]", "the computation that leads from ids to vectors"),
)
ROLES = {
    (THETA, INPUT): "θ is not part of the input: tokens change with every call, these numbers change only in training",
    (THETA, RULE): "the rule and its numbers are two things: with other numbers the same g is another model",
    (THETA, OUTPUT): "these numbers are not what one call gives back: they stay the same from call to call",
    (INPUT, THETA): "tokens come anew with every call and are not learned; θ is learned",
    (INPUT, OUTPUT): "this goes in, it does not come out",
    (
        OUTPUT,
        THETA,
    ): "this comes out of a call and is another one for another text; θ stays the same until it is trained",
    (OUTPUT, INPUT): "this comes out, it does not go in",
    (OUTPUT, RULE): "this is what g gives back for one input, not g itself",
    (INPUT, RULE): "this is what g is applied to, not g itself",
    (RULE, THETA): "the rule says what is done with the numbers; the numbers themselves are θ",
    (RULE, INPUT): "the rule is the same for every input, and no part of it",
    (RULE, OUTPUT): "the rule makes the output, and is the same for every output",
}


def draw_symbols(rng: np.random.Generator) -> Question:
    """Ask for the role of each part of a described model."""
    what, text, output, rule = MODELS[int(rng.integers(len(MODELS)))]
    tokens, millions, vocabulary = int(rng.integers(9, 300)), int(rng.integers(5, 340)), 1000 * int(rng.integers(4, 60))
    pairs = {
        f"the {tokens} token ids of {text}": INPUT,
        f"{output}, as given for this text": OUTPUT,
        f"{millions} million numbers that were found in training": THETA,
        rule: RULE,
    }
    more = [
        ("the [CLS] at the beginning", INPUT),
        (f"the table with a vector for each of {vocabulary:,} tokens", THETA),
        ("the bias of the last matrix", THETA),
    ]
    pairs = _mixed(rng, {**pairs, **dict(_some(rng, more, 2))})
    return match(
        f"A model $o = g(x_0, …, x_m; θ)$ {what}. Which symbol stands for each part?",
        rng,
        pairs=pairs,
        wrong={
            (item, role): ROLES[own, role]
            for item, own in pairs.items()
            for role in (INPUT, OUTPUT, THETA, RULE)
            if role != own
        },
        why=f"The {tokens} ids change with every call, the {millions} million numbers only in training; g is the rule "
        "that joins them, and o is what it gives back.",
    )


# 01.10 Two questions

FIT, APPLY = "how θ is found while no task is at hand", "how the model is applied to a task later"
STEPS = {
    FIT: (
        "hide words in running text and let the network name them",
        "let the network tell whether sentence B follows sentence A in a collection of texts",
        "predict each next word of ten million web pages",
        "choose 15 % of the tokens of an encyclopedia as questions, and learn from the answers",
        "train on a corpus that no one has labeled, for a million updates",
    ),
    APPLY: (
        "replace the head by one with three labels",
        "train a little more on 2,000 labeled reviews",
        "keep the encoder and read $h_0$ to sort complaints",
        "describe what is wanted in words, and let the model go on writing",
        "store the hidden states of all product pages, to compare them with a customer's question",
    ),
}


def draw_steps(rng: np.random.Generator) -> Question:
    """Ask which of the two questions of pre-training a step answers."""
    first = int(rng.integers(2, 4))
    chosen = {step: FIT for step in _some(rng, STEPS[FIT], first)}
    chosen |= {step: APPLY for step in _some(rng, STEPS[APPLY], 5 - first)}
    pairs = _mixed(rng, chosen)
    wrong = {
        FIT: "this serves a task that someone has already; the first question is how θ is found without one",
        APPLY: "this asks running text itself, before any task is known: it is how θ is found",
    }
    return match(
        "Whoever pre-trains a model must answer two questions. Which of them does each step answer?",
        rng,
        pairs=pairs,
        wrong={(step, kind): wrong[kind] for step, own in pairs.items() for kind in wrong if kind != own},
        why="Text asks its own questions, which fits θ without a task; a head, labels or a prompt bring the task in.",
    )


# 01.11 What stands behind the bar

SENTENCES = (
    "the early bird catches a worm",
    "our old clock stops every night",
    "my sister plants two apple trees",
    "she opened his letter very slowly",
    "they sold their boat last summer",
    "some children built a snow castle",
    "a small dog guards this house",
    "nobody answered when the phone rang",
)


def draw_factor(rng: np.random.Generator) -> Question:
    """Ask for the right factor of the chain rule."""
    words = ["[CLS]", *str(rng.choice(SENTENCES)).split()]
    i = int(rng.integers(3, len(words) - 1))
    word, before, after = words[i], words[:i], words[i + 1 :]

    def factor(given: Sequence[str]) -> str:
        return f"Pr({word} | {', '.join(given)})"

    return choice(
        f"The sentence is *{' '.join(words[1:])}*, with [CLS] as $x_0$. The chain rule writes log Pr of the whole as a "
        f"sum of logs. Which factor belongs to $x_{i}$, *{word}*? "
        "(A network sees what stands behind the bar as embeddings.)",
        rng,
        right=factor(before),
        wrong={
            factor(
                [*before, word]
            ): f"“{word}” itself, e_{i}, stands behind the bar: this probability is 1, and a loss of "
            "0 says that the answer was part of the question",
            factor(
                [*before, "[MASK]", *after]
            ): "later words stand behind the bar: this is what a masked model is asked. "
            "Such factors do not multiply to the probability of the sentence",
            factor(
                before[-1:]
            ): f"only the last word stands behind the bar: the chain rule gives all of x₀ … x_{i - 1}",
            factor(after): f"these are the words after “{word}”: from left to right they are not known yet",
        },
        why=f"Position {i} is given x₀ … x_{i - 1}, to a network as e₀ … e_{i - 1}: not itself, and nothing later.",
    )


# 01.12 Three patterns

CAUSAL, MASKED, PREFIX = "a causal model", "a masked model", "a model with a prefix"


def draw_patterns(rng: np.random.Generator) -> Question:
    """Ask which attention pattern an observation belongs to."""
    n, p = int(rng.integers(6, 13)), int(rng.integers(3, 6))
    half, i = n * (n + 1) // 2, int(rng.integers(2, n - 2))
    causal = [
        f"{half} of the {n * n} entries of its table are true",
        "changing $x_1$ leaves $h_0$ as it is and changes all other hidden states",
        f"h_{i} depends on {i + 1} of the {n} embeddings, for this and likewise for every other i",
        f"one pass without any [MASK] predicts the next word at each of the {n} positions, each from its left side",
    ]
    masked = [
        f"all {n * n} entries of its table are true",
        f"changing the last of the {n} tokens changes all {n} hidden states",
        f"nothing is forbidden to look at; only the input is changed, at {p} of {n} positions",
        f"one pass predicts words only at the {p} positions at which the input hides them",
    ]
    prefix = [
        f"{half + p * (p - 1) // 2} of the {n * n} entries of its table are true",
        f"the first {p} of {n} tokens read each other from both sides, each later one only what stands to its left",
        f"h_0 depends on exactly {p} of the {n} embeddings",
    ]
    pairs = {item: CAUSAL for item in _some(rng, causal, 2)} | {item: MASKED for item in _some(rng, masked, 2)}
    pairs = _mixed(rng, {**pairs, str(rng.choice(prefix)): PREFIX})
    says = {
        CAUSAL: f"in a causal model position i looks at 0 … i: {half} of {n * n} entries, and h₀ knows x₀ alone",
        MASKED: f"a masked model may look everywhere, {n * n} of {n * n} entries; the word is hidden in the input",
        PREFIX: f"with a prefix of {p}, these {p} look at each other from both sides, and the others to their left",
    }
    return match(
        f"Three models read **{n}** tokens, $x_0$ to $x_{{{n - 1}}}$: a causal one, a masked one, and one in which the "
        f"first **{p}** tokens are a prefix (a question) that may be read from both sides while the rest is written "
        "from left to right. In the table of each, row i says at which positions j position i may look. Which is it?",
        rng,
        pairs=pairs,
        wrong={(item, kind): says[kind] for item, own in pairs.items() for kind in says if kind != own},
        why=f"Causal fills the triangle ({half} entries), masked everything ({n * n}), and the prefix adds "
        f"{p * (p - 1) // 2} entries to the triangle.",
    )


# 01.7 Which gap

GAPPED = (
    "The scientist carefully examined the sample under the microscope",
    "The pilot slowly landed the damaged plane on the runway",
    "The gardener patiently watered the young roses beside the fence",
    "The lawyer quietly placed the signed contract on the desk",
    "The children eagerly opened the colorful presents under the tree",
    "The conductor gently raised the wooden baton before the orchestra",
    "The fisherman tiredly pulled the heavy nets into the boat",
    "The teacher calmly explained the difficult problem to the class",
)


def draw_gaps(rng: np.random.Generator) -> Question:
    """Ask at which gap the right side is worth nothing, or the left side."""
    words = str(rng.choice(GAPPED)).split()
    last, at_end = len(words) - 1, bool(rng.integers(2))
    places = [0, *sorted(_some(rng, range(1, last), 2)), last]
    right = last if at_end else 0

    def gap(i: int) -> str:
        return " ".join([*words[:i], "[MASK]", *words[i + 1 :]])

    def says(i: int) -> str:
        if at_end:
            return f"behind the gap stands “{' '.join(words[i + 1 :])}”: a masked model reads it, a causal one cannot"
        return f"before the gap stands “{' '.join(words[:i])}”: a causal model has read this when it comes to the gap"

    question = (
        "At which gap does a **masked** model know nothing more about the hidden word than a **causal** one?"
        if at_end
        else "At which gap does a **causal** model have nothing but [CLS] to go by?"
    )
    why = (
        "The right side is empty there: one side must do, and both models are equally well off."
        if at_end
        else "The left side is empty there; a masked model still has everything that follows."
    )
    wrong = {gap(i): says(i) for i in places if i != right}
    return choice(question, rng, right=gap(right), wrong=wrong, why=why)
