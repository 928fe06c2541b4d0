"""Tasks on precision: where a sum gets stuck, and what stays in fp32."""

from __future__ import annotations

import math

import numpy as np

from mlmkit.grading.questions import numbers, several
from mlmkit.grading.tasks import ConceptTask, Question

# 12.3 What few bits can hold


def _rounded(value: float, bits: int) -> float:
    """Nearest number with so many bits of fraction, ties to even."""
    fraction, exponent = math.frexp(value)
    scale = 2.0 ** (bits + 1)
    return math.ldexp(round(fraction * scale) / scale, exponent)


def _stuck(loss: float, bits: int) -> float:
    total = 0.0
    while (new := _rounded(total + loss, bits)) != total:
        total = new
    return total


def _draw_bits(rng: np.random.Generator) -> Question:
    bits = int(rng.choice([3, 4, 6, 9, 11, 12]))
    loss = float(rng.choice([2.6, 2.9, 3.3, 5.3, 5.7, 6.3, 6.7, 7.4, 9.3, 11.7]))
    loss16 = _rounded(loss, 7)
    stuck = _stuck(loss16, 7)
    first = 2 ** (bits + 1)
    return numbers(
        f"A format has **{bits} bits of fraction** and exponents enough. You add 1 again and again, and each sum is "
        "rounded to the nearest number of the format (a sum just in the middle to the one with the even last bit). "
        "What is the first whole number n for which n + 1 gives n again (`first`)? Then bf16, with 7 bits of fraction: "
        f"a running total begins at 0, and many losses of about {loss:g} are added to it ({loss16:g} in bf16, to be "
        "exact). At which number does the total get stuck (`stuck`)?",
        {"first": first, "stuck": stuck},
        wrong={
            f"up to 2^{bits + 1} = {first} every whole number has its place: there is one bit before the fraction that "
            "is not stored": {"first": first / 2},
            f"{first} can still be reached by adding 1; it is {first} + 1 that finds no place": {"first": first - 1},
            "at this number the distance to the next is more than the loss for the first time, but not yet twice as "
            "much: the sum is rounded up, and goes on": {"stuck": stuck / 2},
            "here the total stuck already: it cannot get so far, since a loss is less than half of the distance to the "
            "next number": {"stuck": stuck * 2},
            "256 is where adding 1 stops in bf16; a larger loss gets further, until it is less than half of the "
            "distance to the next number": {"stuck": 256},
        },
        why=f"From {first} on neighbors are 2 apart, and {first} + 1 lies in the middle: it is rounded to {first}. "
        f"From {stuck:g} on bf16 has neighbors {stuck / 128:g} apart, and half of that is more than {loss16:g}.",
        relative=1e-6,
    )


# 12.10 What stays in fp32


def _draw_precision(rng: np.random.Generator) -> Question:
    exact = {
        "the weights to which the optimizer adds its updates": (
            "small updates vanish in bf16, so the weights that take them stay in fp32"
        ),
        "Adam's two averages": "autocast makes neither the weights nor Adam's averages smaller: they stay in fp32",
        "the gradient of a weight matrix, as the optimizer gets it": (
            "the gradient arrives where the weight is, in fp32; only the products on the way are in bf16"
        ),
        "the loss that `mlm_loss` returns": (
            "`mlm_loss` leaves 16 bits before it takes exponentials and averages: many terms are added there"
        ),
    }
    coarse = {
        "the scores that the decoder gives": "the decoder is a matrix product, and products are made in bf16",
        "what a linear layer hands on": (
            "a linear layer is a matrix product: weights and inputs are cast, and the result is bf16 as well"
        ),
        "the copy of a weight matrix that goes into a product": (
            "the master copy is fp32; for each forward pass a bf16 copy of it is made, and that one is multiplied"
        ),
        "queries, keys and values": "they are made by a matrix product, in bf16",
    }
    right = [list(exact)[i] for i in sorted(rng.permutation(4)[:3])]
    wrong = [list(coarse)[i] for i in sorted(rng.permutation(4)[:3])]
    return several(
        'A network is trained with `train_step(…, precision="bf16")`, '
        f"{100 * int(rng.integers(2, 90))} updates so far: "
        "the forward pass runs under autocast. Which of these are **fp32** numbers?",
        rng,
        right={item: exact[item] for item in right},
        wrong={item: coarse[item] for item in wrong},
        why="Products are made in bf16; what takes small additions, the weights, the averages, the loss, stays in "
        "fp32.",
    )


BITS = ConceptTask(id="12.3", title="What few bits can hold", points=2, concepts=(), draw=_draw_bits, computed=True)
PRECISION = ConceptTask(id="12.10", title="What stays in fp32", points=2, concepts=(), draw=_draw_precision)
