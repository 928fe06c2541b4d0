"""Tasks on speed: operations, utilization, softmax in blocks, several ranks, memory, the bill of a run."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from mlmkit.config import ModelConfig
from mlmkit.flops import forward_flops, training_flops
from mlmkit.grading.questions import choice, numbers
from mlmkit.grading.sets.speed_code import BLOCKS, COMBINE, COUNT
from mlmkit.grading.sets.speed_precision import BITS, PRECISION
from mlmkit.grading.tasks import ConceptTask, Question
from mlmkit.presets import PRESETS

# 12.1 Operations of an update


def _draw_operations(rng: np.random.Generator) -> Question:
    L, H = int(rng.integers(2, 5)), int(rng.choice([64, 128, 256]))
    S, V = int(rng.choice([32, 48, 64, 96, 128])), int(rng.choice([2000, 3000, 4096, 6000]))
    M = int(rng.integers(S // 8, S // 5))
    sizes = ModelConfig(vocab_size=V, hidden_size=H, num_hidden_layers=L, intermediate_size=4 * H)
    some, everywhere = forward_flops(sizes, [S], [M]), forward_flops(sizes, [S])
    rest = everywhere.total - everywhere.mlm_head
    vocabulary = math.floor(rest / (2 * S * H) - H) + 1
    update = 3 * some.total / 1e6
    return numbers(
        f"A network has L = {L}, H = {H}, F = {4 * H} and V = {V}. An update is made on **one pair of S = {S} tokens "
        f"with {M} selected positions**. How many million operations does that take, backward pass included "
        f"(`update`)? And what is the smallest V (`vocabulary`) at which, with the scores computed at all {S} "
        "positions and the last layer answering everywhere, the MLM head (dense layer and decoder) takes more than "
        "half of the forward pass? Four digits suffice. Use a pencil or a few lines of code; `training_flops` may "
        "check you.",
        {"update": update, "vocabulary": vocabulary},
        wrong={
            "this is the forward pass alone; the backward pass costs twice as much again": {"update": update / 3},
            "a multiplication and an addition are two operations: a product takes 2mkn": {"update": update / 2},
            "only the selected positions are scored, and the last layer answers only there and at [CLS]": {
                "update": 3 * everywhere.total / 1e6
            },
            "the backward pass makes two products for each of the forward pass, so together there are three, not two": {
                "update": 2 * update / 3
            },
            "the head has a dense layer of H × H too, before the decoder": {"vocabulary": vocabulary + H},
            "more than half of the forward pass means more than all the rest of it together, not more than half of the "
            "rest": {"vocabulary": math.floor(rest / (4 * S * H) - H) + 1},
        },
        why=f"The forward pass takes {some.total / 1e6:.2f} million operations, an update three times that. At all "
        f"positions the head takes 2·{S}·{H}·({H} + V), and everything else {rest / 1e6:.2f} million: equal at V ≈ "
        f"{vocabulary}.",
        relative=0.001,
    )


# 12.2 A share of the peak


def _draw_share(rng: np.random.Generator) -> Question:
    peak, seconds = int(rng.choice([125, 312, 989])), int(rng.integers(10, 61))
    mfu, parts = float(rng.uniform(0.12, 0.45)), int(rng.integers(3, 7))
    work = float(f"{mfu * seconds * peak / 1000:.3g}")
    mfu = work * 1e3 / (seconds * peak)
    return numbers(
        f"A run does {work:g} · 10¹⁵ useful operations in {seconds} seconds on a device with a peak of {peak} TFLOP/s. "
        f"What is its `mfu`, as a share? One {['third', 'quarter', 'fifth', 'sixth'][parts - 3]} of its positions were "
        "padding. A colleague counts padding as useful, and assumes that the work grows with the positions. What share "
        "does he report (`reported`)?",
        {"mfu": mfu, "reported": mfu * parts / (parts - 1)},
        wrong={
            "padding is extra work on top of the useful operations: whoever counts it reports more, not less": {
                "reported": mfu * (parts - 1) / parts
            },
            f"the padding is 1/{parts} of all positions, not of the real ones: all positions are {parts}/{parts - 1} "
            "of the real ones": {"reported": mfu * (1 + 1 / parts)},
            "the colleague's number is not the true one: for the same seconds he counts more operations": {
                "reported": mfu
            },
            "these are two numbers in the wrong places: MFU is the share of useful operations, padding left out": {
                "mfu": mfu * parts / (parts - 1)
            },
            "this is the inverse: the operations that were done belong above, seconds times peak below": {
                "mfu": 1 / mfu
            },
        },
        why=f"{work:g}·10¹⁵ / ({seconds} · {peak}·10¹²) = {mfu:.3f}; with padding {parts}/{parts - 1} times as much. A "
        "number that becomes better with more padding measures nothing.",
    )


# 12.4 One more block


def _draw_block(rng: np.random.Generator) -> Question:
    old = [int(x) for x in rng.integers(0, 7, 6)]
    mu = max(old)
    top = mu + int(rng.integers(1, 3)) if rng.random() < 0.6 else mu - int(rng.integers(1, 3))
    new = [int(x) for x in rng.permutation([top, top - int(rng.integers(1, 4))])]
    sigma = sum(math.exp(s - mu) for s in old)
    after, factor = max(mu, *new), math.exp(min(mu - top, 0))
    right = sigma * factor + sum(math.exp(s - after) for s in new)
    blocks = ", ".join(f"{old[i]} and {old[i + 1]}" for i in (0, 2, 4))
    return numbers(
        f"A query reads its keys in blocks of two. The scores of the first three blocks are {blocks}; a fourth block "
        f"has the scores **{new[0]} and {new[1]}**. What are the running maximum μ (`mu`) and the running sum σ "
        "(`sigma`) after the fourth block, and by which `factor` was the old σ multiplied when this block came? Three "
        "digits suffice.",
        {"mu": after, "sigma": right, "factor": factor},
        wrong={
            "the old sum does not shrink in your σ: its exponentials are still measured against the old maximum": {
                "sigma": sigma + sum(math.exp(s - after) for s in new)
            },
            "you measured the new block against its own maximum; it must be the largest score so far": {
                "sigma": sigma * factor + sum(math.exp(s - top) for s in new)
            },
            "μ is the largest score so far, not the largest of the block": {"mu": top},
            "the factor is e^(μ − μ′), old minus new: the old sum shrinks when the maximum grows": {
                "factor": 1 / factor
            },
            "the maximum has moved, so the factor is not 1": {"factor": 1},
            "the factor concerns the old maximum, which has not moved: nothing needs to shrink": {
                "factor": math.exp(-abs(mu - top))
            },
        },
        why=f"μ was {mu} and is {after}, so the old σ of {sigma:.4g} is multiplied by {factor:.4g}, and the block adds "
        f"{sum(math.exp(s - after) for s in new):.4g}.",
    )


# 12.6 Three ranks


def _draw_ranks(rng: np.random.Generator) -> Question:
    while True:
        counts = [int(x) for x in rng.integers(4, 40, 3)]
        losses = [float(x) for x in rng.choice(np.arange(3.0, 7.5, 0.5), 3, replace=False)]
        total = sum(counts)
        loss = sum(n * x for n, x in zip(counts, losses, strict=True)) / total
        factors = [3 * n / total for n in counts]
        spread = min(abs(f - 1) for f in factors)
        if abs(loss - sum(losses) / 3) > 0.15 and spread > 0.1 and abs(factors[0] - factors[2]) > 0.1:
            break
    mean = sum(losses) / 3
    return numbers(
        f"Three ranks hold {counts[0]}, {counts[1]} and {counts[2]} selected tokens and have mean losses of "
        f"{losses[0]:g}, {losses[1]:g} and {losses[2]:g} nats. What is the `loss` of the whole batch, and what the "
        "`mean_of_means`? The library adds up the gradients of the ranks and divides by 3. By which factors must the "
        "`first` and the `last` rank multiply their losses before the backward pass, so that the gradient is that of "
        "the whole batch?",
        {"loss": loss, "mean_of_means": mean, "first": factors[0], "last": factors[2]},
        wrong={
            "the loss of the batch is a mean over tokens, not over ranks: a rank with more tokens counts more": {
                "loss": mean
            },
            "these are the shares N_r / N. The library divides by 3 once more, which the factors must undo": {
                "first": factors[0] / 3,
                "last": factors[2] / 3,
            },
            "turn the factors around: a rank with more tokens gets the larger one": {
                "first": 1 / factors[0],
                "last": 1 / factors[2],
            },
            "with factors of 1 the result is the mean of means": {"first": 1, "last": 1},
            "the mean of means does not care how many tokens a rank has": {"mean_of_means": loss},
            "this is the sum over tokens: divide by all of them": {"loss": loss * total},
        },
        why=f"With N = {total} tokens the shares are N_r / N, and the factors 3·N_r / N: {factors[0]:.3g}, "
        f"{factors[1]:.3g} and {factors[2]:.3g}, which average to 1.",
    )


# 12.7 A bill


def _draw_bill(rng: np.random.Generator) -> Question:
    hours, mfu = int(rng.choice([24, 36, 48, 60, 72])), float(rng.choice([0.2, 0.25, 0.3, 0.35, 0.4, 0.45]))
    base = PRESETS["base"]
    sizes = replace(base.model, vocab_size=base.data.vocab_size)
    long, short = (training_flops(sizes, [S] * B, [0.15 * S] * B).total for S, B in ((512, 256), (128, 1024)))
    can = hours * 3600 * mfu * 312e12
    return numbers(
        f"You have **{hours} hours** on one device of 312 TFLOP/s and measured an MFU of {mfu:g}. Sequences are full, "
        "and 15 % of their positions are selected. How many updates of the `base` preset can you afford: with B = 256 "
        "and S = 512 (`long`), and with B = 1024 and S = 128 (`short`)? `training_flops` counts an update: give it "
        '`PRESETS["base"].model` with `vocab_size` 30522, B times the length S, and B times 0.15·S. Three digits '
        "suffice.",
        {"long": can / long, "short": can / short},
        wrong={
            "both batches have as many tokens, but not as many operations: attention scores grow with the square of "
            "the length": {"short": can / long},
            "four times as many sequences of a quarter of the length: the batch has as many tokens as before, not four "
            "times as many": {"short": can / short / 4},
            "the device does not reach its peak: multiply by the MFU": {
                "long": can / long / mfu,
                "short": can / short / mfu,
            },
            "this counts forward passes; an update takes three times as much": {
                "long": 3 * can / long,
                "short": 3 * can / short,
            },
            "an hour has 3600 seconds": {"long": can / long / 60, "short": can / short / 60},
        },
        why=f"{hours} hours are {can:.3g} useful operations; an update takes {long:.4g} of them with S = 512 and "
        f"{short:.4g} with S = 128. The tokens are as many; the scores, 4SH for each, are fewer.",
        relative=0.01,
    )


# 12.11 Memory and traffic


def _draw_memory(rng: np.random.Generator) -> Question:
    weights, B, heads = int(rng.integers(20, 400)), int(rng.choice([16, 32, 64])), int(rng.choice([8, 12, 16]))
    S, R = int(rng.choice([256, 512, 1024])), int(rng.choice([4, 8, 16]))
    scores = 2 * B * heads * S**2 / 1e6
    sent = 2 * (R - 1) / R * 4 * weights
    return numbers(
        f"A network has **{weights} million weights** and is trained with Adam under bf16 autocast. How many MB (10⁶ "
        "bytes) do weights, gradients and Adam's averages take together (`state`)? How many MB would the attention "
        f"scores of one layer take in bf16, written out, for B = {B} sequences of S = {S} and {heads} heads "
        f"(`scores`)? How many MB does each of {R} ranks send in a ring all-reduce of the fp32 gradients (`sent`)?",
        {"state": 16 * weights, "scores": scores, "sent": sent},
        wrong={
            "these are the weights alone: a gradient and two averages stand beside each of them": {
                "state": 4 * weights
            },
            "autocast does not make these smaller: master weights, gradients and averages stay in fp32": {
                "state": 8 * weights
            },
            "Adam keeps two averages for each weight, not one": {"state": 12 * weights},
            "each head has scores of its own": {"scores": scores / heads},
            "a bf16 number has two bytes": {"scores": 2 * scores},
            "every position reads every position: S² scores for each head and sequence": {"scores": scores / S},
            "this is what a rank would receive if all others sent their whole gradients; the ring cuts them into "
            "pieces": {"sent": (R - 1) * 4 * weights},
            "the pieces go round twice: once to be added up, once to hand the sums to all": {"sent": sent / 2},
        },
        why=f"16 bytes for each weight; 2·B·a·S² bytes of scores; and 2·{R - 1}/{R} times the {4 * weights} MB of the "
        "gradient, less than two of them.",
        relative=0.002,
    )


# 12.13 Faster than the machine


def _draw_clock(rng: np.random.Generator) -> Question:
    share, batch = float(rng.uniform(1.3, 6.0)), int(rng.choice([64, 128, 256, 512]))
    peak = int(rng.choice([125, 312, 989]))
    return choice(
        f"A step with B = {batch} is timed on a GPU with a published bf16 peak of {peak} TFLOP/s: the clock is read, "
        f"`train_step` is called, the clock is read again. The useful operations over these seconds give a share of "
        f"the peak of **{share:.2f}**. What has happened?",
        rng,
        right="The clock was stopped when the work was queued, not when it was done",
        wrong={
            "The products were made in bf16, which is faster than the peak allows": (
                "the peak is already that of bf16 products; no way of computing does more operations than the peak"
            ),
            f"A batch of {batch} fills the GPU so well that it exceeds its peak": (
                "a larger batch brings the share nearer to 1, and never beyond it"
            ),
            "Padding was left out of the count": (
                "leaving padding out makes the count of operations smaller, and the share with it"
            ),
            "The first step was timed, before the machine had warmed up": (
                "a first step takes longer than the others, so its share would be too small"
            ),
        },
        why="A share above 1 is impossible, so the time is wrong: a call on a GPU returns when the work is queued. "
        "Wait with `torch.cuda.synchronize()` before you read the clock.",
    )


TASKS = (
    ConceptTask(
        id="12.1", title="Operations of an update", points=3, concepts=(), draw=_draw_operations, computed=True
    ),
    ConceptTask(id="12.2", title="A share of the peak", points=2, concepts=(), draw=_draw_share, computed=True),
    BITS,
    ConceptTask(id="12.4", title="One more block", points=2, concepts=(), draw=_draw_block, computed=True),
    ConceptTask(id="12.6", title="Three ranks", points=3, concepts=("C10",), draw=_draw_ranks, computed=True),
    ConceptTask(id="12.7", title="A weekend's updates", points=2, concepts=(), draw=_draw_bill, computed=True),
    COMBINE,
    BLOCKS,
    PRECISION,
    ConceptTask(id="12.11", title="Memory and traffic", points=3, concepts=(), draw=_draw_memory, computed=True),
    COUNT,
    ConceptTask(id="12.13", title="Faster than the machine", points=1, concepts=(), draw=_draw_clock),
)
