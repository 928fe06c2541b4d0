"""Correct solutions of exercise set 04, each written differently: the check must accept all of them."""

import math

import numpy as np
import torch

# 04.2


def lost_by_entropies(joint):
    def entropy(p):
        return -sum(a * math.log(a) for a in np.ravel(p) if a > 0)

    return entropy(joint.sum(axis=0)) + entropy(joint.sum(axis=1)) - entropy(joint)


def lost_by_loop(joint):
    rows, columns = joint.shape
    total = 0.0
    for i in range(rows):
        for j in range(columns):
            p = joint[i, j]
            if p > 0:
                total += p * math.log(p / (sum(joint[i]) * sum(joint[:, j])))
    return total


def lost_in_torch(joint):
    p = torch.from_numpy(joint).float()
    q = p.sum(1, keepdim=True) * p.sum(0, keepdim=True)
    return torch.where(p > 0, p * (p.clamp(min=1e-30).log() - q.clamp(min=1e-30).log()), 0.0).sum()


def lost_with_outer(joint):
    product = np.outer(joint.sum(1), joint.sum(0))
    ratio = np.divide(joint, product, out=np.ones_like(joint), where=joint > 0)
    return (joint * np.log(ratio)).sum()


# 04.3


def questions_by_slices(words, right_to_left):
    rows, m = [], len(words)
    for i in range(1, m + 1):
        if right_to_left:
            x_bar = ["[CLS]"] + ["[MASK]"] * i + words[i:]
        else:
            x_bar = ["[CLS]"] + words[: i - 1] + ["[MASK]"] * (m - i + 1)
        rows.append([x_bar, words[i - 1]])
    return rows


def questions_in_place(words, right_to_left):
    rows = []
    for i, word in enumerate(words, start=1):
        x_bar = ["[CLS]", *words]
        for j in range(1, len(x_bar)):
            if (j <= i) if right_to_left else (j >= i):
                x_bar[j] = "[MASK]"
        rows.append((x_bar, word))
    return tuple(rows)


def questions_mirrored(words, right_to_left):
    if right_to_left:
        turned = questions_mirrored(words[::-1], False)
        return [(["[CLS]", *x_bar[:0:-1]], word) for x_bar, word in turned[::-1]]
    x = ["[CLS]", *words]
    return [(x[:i] + ["[MASK]"] * len(x[i:]), x[i]) for i in range(1, len(x))]


VARIANTS = {
    "04.2": (lost_by_entropies, lost_by_loop, lost_in_torch, lost_with_outer),
    "04.3": (questions_by_slices, questions_in_place, questions_mirrored),
}
