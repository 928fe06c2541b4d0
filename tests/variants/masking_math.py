"""Correct solutions of exercise set 02, each written differently: the check must accept all of them."""

import math

import numpy as np
import torch
import torch.nn.functional as F

# 02.1


def hide_in_a_copy(words, positions):
    x = ["[CLS]", *words]
    x_bar, labels = list(x), [None] * len(x)
    for i in positions:
        labels[i] = x[i]
        x_bar[i] = "[MASK]"
    return x_bar, labels


def hide_word_by_word(words, positions):
    x_bar, labels = ["[CLS]"], [None]
    for i, word in enumerate(words, start=1):
        x_bar.append("[MASK]" if i in positions else word)
        labels.append(word if i in positions else None)
    return [x_bar, labels]


def hide_with_a_mask(words, positions):
    x = ["[CLS]", *words]
    selected = np.zeros(len(x), dtype=bool)
    selected[np.array(positions, dtype=int)] = True
    pairs = [("[MASK]", token) if chosen else (token, None) for token, chosen in zip(x, selected, strict=True)]
    return tuple(map(list, zip(*pairs, strict=True)))


# 02.10


def loss_by_loop(logits, labels):
    total, count = 0.0, 0
    for b in range(labels.shape[0]):
        for i in range(labels.shape[1]):
            if labels[b, i] != -100:
                z = logits[b, i]
                total += z.exp().sum().log() - z[labels[b, i]]
                count += 1
    return total / count if count else 0.0


def loss_weighted_in_time(logits, labels):
    each = F.cross_entropy(logits.transpose(1, 2), labels.clamp(min=0), reduction="none")
    weight = (labels != -100).float()
    return (each * weight).sum() / weight.sum().clamp(min=1)


def loss_ignored(logits, labels):
    if (labels == -100).all():
        return torch.tensor(0.0)
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.flatten(), ignore_index=-100)


def loss_in_numpy(logits, labels):
    z, t = logits.double().numpy(), labels.numpy()
    z, t = z[t != -100], t[t != -100]
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    return -np.log(p[np.arange(len(t)), t]).sum() / max(len(t), 1)


def loss_with_one_hot(logits, labels):
    selected = labels != -100
    one_hot = F.one_hot(labels[selected], logits.shape[-1])
    return -(one_hot * logits[selected].log_softmax(-1)).sum() / max(int(selected.sum()), 1)


# 02.11


def score_by_loop(probabilities, x, positions):
    total = 0.0
    for i in positions:
        total += math.log(probabilities[i][x[i]])
    return total


def score_by_index(probabilities, x, positions):
    at = np.array(positions, dtype=int)
    return np.log(probabilities[at, np.array(x)[at]]).sum()


def score_in_torch(probabilities, x, positions):
    table = torch.from_numpy(probabilities).float()
    picked = table.gather(1, torch.tensor(x)[:, None])[:, 0].log()
    selected = torch.zeros(len(x), dtype=torch.bool)
    for i in positions:
        selected[i] = True
    return picked[selected].sum()


VARIANTS = {
    "02.1": (hide_in_a_copy, hide_word_by_word, hide_with_a_mask),
    "02.10": (loss_by_loop, loss_weighted_in_time, loss_ignored, loss_in_numpy, loss_with_one_hot),
    "02.11": (score_by_loop, score_by_index, score_in_torch),
}
