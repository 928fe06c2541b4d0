"""Questions on which rows of a table learn: how often, from which side, and what becomes of the row of [PAD]."""

from __future__ import annotations

import math

import numpy as np

from mlmkit.grading.chance import apart
from mlmkit.grading.questions import number, numbers, several
from mlmkit.grading.sets.embedding_sum_code import Array
from mlmkit.grading.tasks import Question

# 08.1 How large a batch


def draw_batch_size(rng: np.random.Generator) -> Question:
    """08.1: positions in a batch, so that a rare row learns."""
    one_in, wanted = 1000 * int(rng.integers(2, 31)), float(rng.choice([0.3, 0.6, 0.75, 0.9, 0.95]))
    value = math.log(1 - wanted) / math.log(1 - 1 / one_in)
    return number(
        f"A token makes up **one in {one_in:,}** of a text. How many positions must a batch have so that the "
        f"token's row learns, as an input, in **{100 * wanted:.0f} %** of the batches? Positions are drawn "
        "independently; three digits suffice.",
        value,
        wrong={
            "the shares of the positions do not add up, since a token may come twice in a batch: compute the "
            "probability that it does not come at all": wanted * one_in,
            "with that many positions the token comes once on average, but in some batches twice and in others not at "
            "all": one_in,
            "that is the size at which the token is missing in so many batches": math.log(wanted)
            / math.log(1 - 1 / one_in),
        },
        why=f"Missing from n positions: (1 − 1/{one_in:,})^n = {1 - wanted:.2f}, so n = log {1 - wanted:.2f} / "
        f"log(1 − 1/{one_in:,}) = {value:,.0f}.",
        relative=0.01,
    )


# 08.6 The row of [PAD] after one update


def draw_pad_row(rng: np.random.Generator) -> Question:
    """08.6: the row of [PAD] after one update, tied weights."""
    while True:
        N, lr = int(rng.integers(2, 4)), float(rng.choice([0.1, 0.2, 0.5]))
        p, u = rng.integers(1, 31, N) / 100, rng.integers(-6, 7, (N, 2)) / 2
        asked = p @ u  # the sum over the selected positions
        row = -lr * asked / N
        if apart(asked[0], asked[1], 0.0, relative=0.05) and np.abs(asked).min() > 0.02:
            break
    shown = "; ".join(
        f"Pr([PAD]) = {pi:.2f} and u = ({a:g}, {b:g})".replace("-", "−") for pi, (a, b) in zip(p, u, strict=True)
    )

    def both(values: Array) -> dict[str, float]:
        return {"first": float(values[0]), "second": float(values[1])}

    return numbers(
        f"Tied weights, H = 2. The row of [PAD] is (0, 0). A batch has **N = {N}** selected positions; there the "
        f"model gives [PAD] a probability, and the head makes u of the hidden state: **{shown}**. [PAD] is "
        f"nowhere the true token, and padding is masked in attention. One update by plain SGD with **η = {lr}** "
        "on the MLM loss, without clipping: what is the row of [PAD] then (`first` and `second` number)?",
        both(row),
        wrong={
            "as an input the row gets no gradient, but with tied weights it is also a row of the output layer, and "
            "there it is told at every selected position that it was wrong": both(0 * row),
            "the update goes against the gradient: the row moves away from the u of the positions": both(-row),
            f"the loss is the mean over the selected positions: divide by N = {N}": both(N * row),
            "that is the gradient; the update is −η times it": both(asked / N),
        },
        why=f"The gradient is 1/{N} · Σ Pr([PAD]) u = ({asked[0] / N:.4f}, {asked[1] / N:.4f}); the row becomes "
        f"−{lr} times that. [PAD] is never right, so nothing is taken off.".replace("-", "−"),
        relative=0.01,
    )


# 08.9 Whose rows get a gradient


def draw_reached(rng: np.random.Generator) -> Question:
    """08.9: the rows that a sequence reaches from the input side."""
    pool = "boat fish net rose bee lamp snow train page roof clover honey pear goat cake tea".split()
    words = rng.choice(pool, 8, replace=False).tolist()
    masked, replaced, kept, random, absent, *plain = words
    tokens = [plain[0], masked, plain[1], replaced, kept, plain[2]]
    tokens = [tokens[k] for k in rng.permutation(6)]
    shown = " ".join({masked: "[MASK]", replaced: random}.get(token, token) for token in tokens)
    return several(
        f"The text is “[CLS] {' '.join(tokens)} [SEP]”. “{masked}”, “{replaced}” and “{kept}” are selected, and the "
        f"model is shown “**[CLS] {shown} [SEP] [PAD] [PAD]**”. The output layer has a table of its own, and "
        "padding is masked in attention. After this one sequence, which rows of the input table have a "
        "gradient?",
        rng,
        right={
            "[MASK]": "[MASK] is a token with a row of its own, and it was looked up",
            random: f"“{random}” stands in the input, at a selected position: its row was looked up",
            plain[0]: f"“{plain[0]}” was not selected, but it is read by the positions that were, so its row learns",
            "[CLS]": "nothing is predicted at [CLS], but other positions read it: its row learns",
        },
        wrong={
            masked: f"“{masked}” is the answer, not the input: [MASK] was looked up in its place",
            replaced: f"“{replaced}” is the answer; what was looked up at its place is “{random}”",
            "[PAD]": "padding is read by no position and asked nothing, so nothing flows back to its row",
            absent: f"“{absent}” does not occur in the input: an empty sum",
        },
        why="The row of a token adds up what its places in the input ask for; the true words behind [MASK] and "
        "behind the random word have no place there.",
    )


# 08.10 How many rows


def draw_rows(rng: np.random.Generator) -> Question:
    """08.10: how many rows learn, with and without tied weights."""
    while True:
        V, sizes = int(rng.integers(40, 2000)), rng.integers(4, 9, 2).tolist()
        rows = [[2, *rng.integers(5, 13, size).tolist(), 3] for size in sizes]
        rows[0][int(rng.integers(1, 3))] = rows[1][int(rng.integers(1, 3))] = 4
        S = max(map(len, rows)) + int(rng.integers(1, 3))
        real = sum(map(len, rows))
        distinct = len({token for row in rows for token in row})
        if real - distinct > 2:
            break
    padded = ["[" + ", ".join(map(str, row + [0] * (S - len(row)))) + "]" for row in rows]
    return numbers(
        "A batch shows two sequences, with [PAD] = 0, [CLS] = 2, [SEP] = 3 and [MASK] = 4; the vocabulary has **V "
        f"= {V}** tokens:\n\n    {padded[0]}\n    {padded[1]}\n\nPadding is masked in attention. How many rows "
        "of the input table get a gradient that is not zero if the output layer has a table of its own "
        "(`own`), and how many if it uses the same table (`tied`)?",
        {"own": distinct, "tied": V},
        wrong={
            "a row collects the requests of all its places: tokens that occur several times count once": {"own": real},
            "no position reads [PAD], so as an input its row gets nothing": {"own": distinct + 1},
            "the rows of all tokens at real positions learn, not only that of [MASK]": {"own": 1},
            "as an input a row learns only if its token stands in the batch": {"own": V},
            "as an output row, every token is scored at the selected positions and learns whether it was right: "
            "all rows get a gradient": {"tied": distinct},
            "[PAD] is a wrong answer like any other: its row gets a gradient from the output side": {"tied": V - 1},
        },
        why=f"{distinct} different tokens stand at real positions. With tied weights each of the {V} scores pulls "
        "at its row, whether the token occurs or not.",
        relative=1e-9,
    )
