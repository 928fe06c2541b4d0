"""Questions on the encoder that are answered by counting: parameters, and who reads whom."""

from __future__ import annotations

import numpy as np

from mlmkit.grading.questions import numbers
from mlmkit.grading.tasks import Question

# 09.5 The parameters of an attention


def draw_attention_parameters(rng: np.random.Generator) -> Question:
    """Ask for the parameters of an attention with a and 2a heads."""
    H = int(rng.choice([64, 96, 128, 192, 256, 384, 512, 768]))
    a = int(rng.choice([2, 4, 8]))
    right = 4 * H * H + 4 * H
    return numbers(
        f"A self-attention with H = {H} and a = {a} heads, with biases and output projection. How large is a head "
        f"(`D`)? How many parameters has the attention (`parameters`), and how many has one with {2 * a} heads instead "
        "(`more_heads`)?",
        {"D": H // a, "parameters": right, "more_heads": right},
        wrong={
            "heads share out the H numbers among them: more heads are smaller heads, and cost no parameter": {
                "more_heads": 2 * right
            },
            "each matrix of H × H serves all heads together: the number of heads is no factor": {
                "parameters": a * right,
                "more_heads": 2 * a * right,
            },
            "the output projection W_O is missing: there are four matrices, not three": {
                "parameters": 3 * H * H + 3 * H,
                "more_heads": 3 * H * H + 3 * H,
            },
            "the four biases of H numbers each are missing": {"parameters": 4 * H * H, "more_heads": 4 * H * H},
            "every head would have the full size; but the H numbers are cut into a pieces, D = H/a": {"D": H},
        },
        why=f"Four matrices and four biases: 4 · {H}² + 4 · {H} = {right:,}. The number of heads is not in it: "
        f"{2 * a} heads of {H // (2 * a)} have as many as {a} heads of {H // a}.",
        relative=1e-9,
    )


# 09.8 The parameters of an encoder


def draw_encoder_parameters(rng: np.random.Generator) -> Question:
    """Ask for the parameters of an encoder by parts."""
    L, H = [(4, 256), (6, 384), (8, 512), (24, 1024), (6, 512), (3, 128)][int(rng.integers(6))]
    V, P = int(rng.choice([8000, 16000, 28996, 30522])), int(rng.choice([128, 256, 512]))
    embeddings, layers, pooler = (V + P + 2) * H + 2 * H, L * (12 * H * H + 13 * H), H * H + H
    return numbers(
        f"A BERT has L = {L} layers, H = {H}, F = 4H = {4 * H}, V = {V} tokens, {P} positions and 2 segments. How many "
        "parameters have the embeddings with their layer norm (`embeddings`), all layers together (`layers`), and the "
        "encoder with pooler (`total`)? Let Python compute; exact numbers.",
        {"embeddings": embeddings, "layers": layers, "total": embeddings + layers + pooler},
        wrong={
            "2H numbers are missing: the table of 2 segments, or scale and shift of the layer norm at the end": {
                "embeddings": (V + P + 2) * H
            },
            "2H numbers too many, or a third segment: the tables have V, P and 2 rows, and there is one norm": {
                "embeddings": (V + P + 2) * H + 4 * H
            },
            "these are the matrices only; each layer also has 13H numbers in biases and norms": {
                "layers": L * 12 * H * H
            },
            f"this is one layer; there are {L}, each with weights of its own": {"layers": 12 * H * H + 13 * H},
            "a layer has two norms with scale and shift, 4H numbers; they are missing": {
                "layers": L * (12 * H * H + 9 * H)
            },
            "the pooler is missing, a matrix of H × H with a bias": {"total": embeddings + layers},
        },
        why=f"({V} + {P} + 2)H + 2H = {embeddings:,}; {L} · (12H² + 13H) = {layers:,}; the pooler has H² + H = "
        f"{pooler:,}.",
        relative=1e-9,
    )


# 09.16 Who sees whom


def draw_pattern(rng: np.random.Generator) -> Question:
    """Ask who reads whom with a causal bias and without."""
    S, L = int(rng.integers(8, 14)), int(rng.integers(2, 7))
    i = int(rng.integers(2, S - 1))
    pairs = S * (S + 1) // 2
    return numbers(
        f"A sequence of S = {S} positions, `[CLS]` at position 0, no padding, an encoder of {L} layers. In one "
        "layer, how many pairs (who reads, who is read) have a weight above 0 with a causal bias (`causal`), and how "
        f"many without any bias (`both`)? On how many of the {S} inputs does the hidden state of `[CLS]` depend "
        f"after {L} layers, with a causal bias (`cls_causal`) and without (`cls_both`)? And that of position {i} "
        "with a causal bias (`middle_causal`)?",
        {"causal": pairs, "both": S * S, "cls_causal": 1, "cls_both": S, "middle_causal": i + 1},
        wrong={
            "each position may also read itself; otherwise row 0 would have nothing to read": {
                "causal": S * (S - 1) // 2
            },
            "with a causal bias [CLS] comes first and reads nothing but itself: it knows no word of the text, in any "
            "layer": {"cls_causal": S},
            "more layers do not lift the bias: what position 0 reads in layer 2 is again only position 0": {
                "cls_causal": L
            },
            "a position sees itself too: counted from 0, there are one more": {"middle_causal": i},
            "what lies behind is hidden in every layer, so no layer lets it in": {"middle_causal": S},
        },
        why=f"Row i of a causal pattern has i + 1 open places, together {S} · {S + 1} / 2 = {pairs}; without a bias "
        f"{S}². A classifier that reads h₀ needs an encoder that looks both ways.",
        relative=1e-9,
    )
