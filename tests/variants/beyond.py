"""Right solutions of exercise set 15, written in other ways."""

import itertools
import re

import numpy as np
import torch
import torch.nn.functional as F


def consecutive_share_strings(selected):
    rows = ["".join("x" if hit else "." for hit in row) for row in selected.tolist()]
    runs = [len(run) for row in rows for run in re.findall("x+", row)]
    return sum(n for n in runs if n >= 2) / sum(runs) if runs else 0.0


def consecutive_share_numpy(selected):
    padded = np.pad(selected.numpy(), ((0, 0), (1, 1)))
    beside = (padded[:, :-2] | padded[:, 2:]) & padded[:, 1:-1]
    return beside.sum() / max(1, padded.sum())


def consecutive_share_convolution(selected):
    x = selected.float()
    neighbors = F.conv1d(x[:, None], torch.tensor([[[1.0, 0.0, 1.0]]]), padding=1)[:, 0]
    alone = (x * (neighbors == 0)).sum()
    return float(1 - alone / x.sum()) if x.sum() > 0 else 0


def consecutive_share_loop(selected):
    together = every = 0
    for row in selected:
        for i in range(1, len(row) - 1):
            if row[i]:
                every += 1
                together += int(row[i - 1] or row[i + 1])
    return together / every if every else 0.0


def decoder_example_lists(words, cls_id, sep_id):
    ids = words.tolist()
    T = len(ids) + 1
    mask = [[0.0 if j <= t else float("-inf") for j in range(T)] for t in range(T)]
    return [[cls_id, *ids], [*ids, sep_id], mask]


def decoder_example_numpy(words, cls_id, sep_id):
    text = np.concatenate([[cls_id], words.numpy(), [sep_id]]).astype(np.int32)
    steps = np.arange(len(text) - 1)
    return text[:-1], text[1:], np.where(steps[None, :] > steps[:, None], -np.inf, 0)


def decoder_example_fill(words, cls_id, sep_id):
    text = F.pad(F.pad(words, (1, 0), value=cls_id), (0, 1), value=sep_id)
    T = words.numel() + 1
    allowed = torch.ones(T, T, dtype=torch.bool).tril()
    return text[:-1], text[1:], torch.zeros(T, T, dtype=torch.float64).masked_fill(~allowed, float("-inf"))


def rtd_batch_scatter(ids, selected, drawn):
    seen = ids.masked_scatter(selected, drawn)
    return seen, (seen != ids).long()


def rtd_batch_loop(ids, selected, drawn):
    new, rows, labels = iter(drawn.tolist()), [], []
    for row, chosen in zip(ids.tolist(), selected.tolist(), strict=True):
        rows.append([next(new) if hit else token for token, hit in zip(row, chosen, strict=True)])
        labels.append([int(a != b) for a, b in zip(row, rows[-1], strict=True)])
    return rows, labels


def rtd_batch_numpy(ids, selected, drawn):
    x, at = ids.numpy(), selected.numpy()
    seen, replaced = x.copy(), np.zeros(x.shape, dtype=np.float32)
    seen[at] = drawn.numpy()
    replaced[at] = drawn.numpy() != x[at]
    return seen, replaced


def damage_groups(words, hidden, kind):
    result = []
    for gone, group in itertools.groupby(zip(words, hidden, strict=True), key=lambda pair: pair[1]):
        run = [word for word, _ in group]
        left = {"mask": len(run), "infill": 1, "delete": 0}[kind]
        result += ["[MASK]"] * left if gone else run
    return result


def damage_steps(words, hidden, kind):
    masked = ["[MASK]" if gone else word for word, gone in zip(words, hidden, strict=True)]
    if kind == "mask":
        return masked
    if kind == "delete":
        return [word for word in masked if word != "[MASK]"]
    return [w for i, w in enumerate(masked) if w != "[MASK]" or i == 0 or masked[i - 1] != "[MASK]"]


def damage_array(words, hidden, kind):
    gone = np.array(hidden, dtype=bool)
    begins = gone & ~np.concatenate([[False], gone[:-1]])
    shown = np.where(gone, "[MASK]", np.array(words)).tolist()
    stay = {"mask": np.ones_like(gone), "infill": ~gone | begins, "delete": ~gone}[kind]
    return tuple(word for word, kept in zip(shown, stay, strict=True) if kept)


VARIANTS = {
    "15.1": (
        consecutive_share_strings,
        consecutive_share_numpy,
        consecutive_share_convolution,
        consecutive_share_loop,
    ),
    "15.4": (decoder_example_lists, decoder_example_numpy, decoder_example_fill),
    "15.6": (rtd_batch_scatter, rtd_batch_loop, rtd_batch_numpy),
    "15.10": (damage_groups, damage_steps, damage_array),
}
