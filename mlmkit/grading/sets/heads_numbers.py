"""Questions on the heads that are answered by computing."""

from __future__ import annotations

import math

import numpy as np

from mlmkit.grading.questions import number, numbers
from mlmkit.grading.tasks import Question


def draw_plateaus(rng: np.random.Generator) -> Question:
    """Ask where a head stops that reads the wrong vector."""
    n, b = (int(x) for x in rng.permutation([3, 4, 5, 6])[:2])
    return numbers(
        f"{n} sentences with {b} blanks each. The blanks stand at the same positions in every sentence, and all "
        f"{n * b} hidden words are different. The network is trained on these sentences until the loss no longer "
        "falls. Where does the mean loss stop, in nats, when the head reads the embedding e_i at the blank "
        "(`reads_e`), and where when it reads h₀, the state of [CLS] (`reads_h0`)? Three digits suffice.",
        {"reads_e": math.log(n), "reads_h0": math.log(b)},
        wrong={
            "it is the other way round: e_i is the same in all sentences, so it leaves as many words open as there are "
            "sentences; h₀ is the same for all blanks of a sentence": {"reads_e": math.log(b), "reads_h0": math.log(n)},
            "that would be a head that knows neither the sentence nor the blank. e_i knows the position, and h₀ "
            "knows the sentence": {"reads_e": math.log(n * b), "reads_h0": math.log(n * b)},
            "no training brings it to 0: the same vector stands for several answers, and all it can do is to share out "
            "the probability": {"reads_e": 0.0, "reads_h0": 0.0},
            "ln 2 is the plateau of two sentences with two blanks each": {
                "reads_e": math.log(2),
                "reads_h0": math.log(2),
            },
        },
        why=f"From e_i there are {n} answers that fit, one for each sentence: ln {n} = {math.log(n):.3f}. From h₀ "
        f"there are {b}, one for each blank: ln {b} = {math.log(b):.3f}. Only h_i tells all {n * b} apart.",
    )


def draw_first_loss(rng: np.random.Generator) -> Question:
    """Ask for the first loss with a bias that counts special tokens as well."""
    words, entropy = int(rng.integers(5, 15)), round(float(rng.uniform(4.2, 6.2)), 2)
    V = int(rng.choice([4000, 8000, 16000]))
    share = words / (words + 2)
    right = entropy - math.log(share)
    return number(
        f"The words of a text have the unigram entropy {entropy} nats; V = {V}. The output bias is set to log "
        f"frequencies, but in counting, [CLS] and [SEP] were counted as well, one each for every {words} words. What "
        "is the first loss, as long as the context is silent (E u = 0)? The loss is taken on words only. In nats, "
        "three digits after the point.",
        right,
        wrong={
            "this is the entropy of the words; but the bias gives each word a share of "
            f"{words}/{words + 2} of its frequency only, since [CLS] and [SEP] have taken theirs": entropy,
            "the words lose probability to tokens that are never asked for, so the loss is larger than the entropy, "
            "not smaller": entropy + math.log(share),
            "this is ln V, the loss with a bias of 0: equal probabilities for all tokens": math.log(V),
            "probabilities are multiplied by the share, and a loss is a logarithm: so something is added to the "
            "entropy, and it is not multiplied": entropy / share,
        },
        why=f"Each word has {words}/{words + 2} of its probability, which costs ln({words + 2}/{words}) = "
        f"{-math.log(share):.3f} more: {right:.3f} nats.",
        unit="nats",
        relative=1e-3,
    )


def draw_costs(rng: np.random.Generator) -> Question:
    """Ask for work and memory of the head at all positions and at the selected ones."""
    B, S = int(rng.choice([20, 40, 60, 80])), int(rng.choice([64, 128, 256]))
    H, V = int(rng.choice([128, 256, 512])), int(rng.choice([4000, 8000, 16000, 30000]))
    M, one = 3 * B * S // 20, H * H + H * V
    return numbers(
        f"A batch has {B} sequences of length {S}; 15 % of all positions are selected. H = {H}, V = {V}. Of the head "
        "count the dense layer and the output layer. How many multiply-adds does it take at all positions "
        "(`work_all`) and at the selected ones (`work_selected`)? How many bytes have its scores in fp32, 4 bytes "
        "each (`bytes_all`, `bytes_selected`)? Exact numbers.",
        {"work_all": B * S * one, "work_selected": M * one, "bytes_all": 4 * B * S * V, "bytes_selected": 4 * M * V},
        wrong={
            "the dense layer is missing: H · H multiply-adds at each position, before the H · V of the output layer": {
                "work_all": B * S * H * V,
                "work_selected": M * H * V,
            },
            "only what is selected goes through the head, dense layer included; here the dense layer ran everywhere": {
                "work_selected": B * S * H * H + M * H * V,
            },
            "this is how many scores there are; each has 4 bytes": {"bytes_all": B * S * V, "bytes_selected": M * V},
            "scores are one number for each token of the vocabulary, V at a position, not H": {
                "bytes_all": 4 * B * S * H,
                "bytes_selected": 4 * M * H,
            },
            "the selection comes before the product: scores that nobody asks for are never made": {
                "work_selected": B * S * one,
                "bytes_selected": 4 * B * S * V,
            },
        },
        why=f"M = {M} of {B * S} positions; at each H² + HV = {one:,} multiply-adds and {V} scores. Loss and "
        "gradient are the same either way.",
        relative=1e-9,
    )


def draw_two_updates(rng: np.random.Generator) -> Question:
    """Ask where one update leads, and where two lead, with two parameters."""
    a, b = [(4, 1), (5, 2), (6, 1), (5, 3), (8, 2), (6, 4), (7, 2)][int(rng.integers(7))]
    eta = [0.1, 0.2, 0.5][int(rng.integers(3))]
    if math.isclose(eta * a, b):
        eta = 0.3
    one = (eta * (a + b), eta * b)
    rest = eta * a - b
    two = (eta * a - eta * rest, -eta * rest)
    return numbers(
        f"Two parameters, MLM loss ½(θ₁ − {a})², NSP loss ½(θ₁ + θ₂ − {b})², start (0, 0), learning rate η = {eta}, "
        "plain gradient descent. Where does one update of the sum lead (`one_1`, `one_2`)? Where do two updates "
        "lead, first for MLM, then for NSP (`two_1`, `two_2`)? And with which η would the first of the two updates "
        f"land exactly on θ₁ + θ₂ = {b} (`eta`)?",
        {"one_1": one[0], "one_2": one[1], "two_1": two[0], "two_2": two[1], "eta": b / a},
        wrong={
            "you took the NSP gradient at the start, as if the order did not matter. The second update starts where "
            f"the first ended, at ({eta * a:g}, 0), and its gradient is that of the new place": {
                "two_1": one[0],
                "two_2": one[1],
            },
            "the losses are added, not averaged: both gradients count whole": {
                "one_1": one[0] / 2,
                "one_2": one[1] / 2,
            },
            "an update goes against the gradient: downhill": {"one_1": -one[0], "one_2": -one[1]},
            "this is where the two updates end in the order MLM, then NSP; one update takes both gradients at the "
            "start": {
                "one_1": two[0],
                "one_2": two[1],
            },
            f"after the first update θ₁ = η · {a} and θ₂ = 0; set their sum to {b}": {"eta": a / b},
        },
        why=f"One: η · ({a + b}, {b}). Two: first ({eta * a:g}, 0), where the NSP gradient is ({rest:g}, {rest:g}). "
        f"With η = {b}/{a} the first update ends where the NSP gradient is 0, and the second does nothing.",
        relative=1e-3,
    )


def draw_pot(rng: np.random.Generator) -> Question:
    """Ask for both losses, their sum, and what one pot would give."""
    while True:
        N, B = int(rng.integers(4, 7)), int(rng.integers(2, 4))
        tokens, pairs = rng.integers(0, 4, N), rng.integers(0, 3, B)
        mlm, nsp = float(tokens.mean()), float(pairs.mean())
        pot, of_mean = float((tokens.sum() + pairs.sum()) / (N + B)), -math.log2(float((0.5**tokens).mean()))
        values = [mlm, nsp, mlm + nsp, pot, (mlm + nsp) / 2, of_mean, float(tokens.sum()), mlm * math.log(2)]
        if min(abs(x - y) for i, x in enumerate(values) for y in values[:i]) > 0.04 and nsp > 0:
            break
    names = {0: "1", 1: "½", 2: "¼", 3: "⅛"}
    return numbers(
        f"A batch has N = {N} selected tokens, whose true words have the probabilities "
        f"{', '.join(names[int(t)] for t in tokens)}, and B = {B} pairs, whose true relations have "
        f"{', '.join(names[int(p)] for p in pairs)}. Give the MLM loss, the NSP loss, their sum as BERT minimizes it "
        "(`total`), and what one pot would give, all terms divided by all that was counted (`pot`). All four **in "
        "multiples of ln 2**: a probability of ¼ costs 2.",
        {"mlm": mlm, "nsp": nsp, "total": mlm + nsp, "pot": pot},
        wrong={
            "these are nats; asked are multiples of ln 2": {
                name: x * math.log(2) for name, x in [("mlm", mlm), ("nsp", nsp), ("total", mlm + nsp), ("pot", pot)]
            },
            "these are sums; each loss is a mean, over its N tokens or its B pairs": {
                "mlm": float(tokens.sum()),
                "nsp": float(pairs.sum()),
                "total": float(tokens.sum() + pairs.sum()),
            },
            "this is the logarithm of the mean probability; the loss is the mean of the logarithms": {"mlm": of_mean},
            "the total is the sum of the two means; this is their average": {"total": (mlm + nsp) / 2},
            "the total is no pot: each loss owns its mean, and only the two means are added": {"total": pot},
            "a pot mixes the terms before it divides; this is the sum of the two means": {"pot": mlm + nsp},
        },
        why=f"MLM {tokens.sum()}/{N}, NSP {pairs.sum()}/{B}; the pot {tokens.sum() + pairs.sum()}/{N + B} weighs the "
        f"two by {N} and {B}, so the weight of NSP would change with the number of words that happened to be selected.",
        relative=0.003,
    )
