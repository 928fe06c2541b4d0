"""Right solutions of set 16 that are written differently."""

import statistics

import numpy as np
import torch


def mended_loops(ids, rng, special, ordinary_ids):
    shape = ids.shape
    x, labels = ids.copy(), np.full(shape, -100)
    segments, mask = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.int32)
    for r in range(shape[0]):
        seen = 0
        for c in range(shape[1]):
            token = ids[r, c]
            if token != special["pad"]:
                mask[r, c], segments[r, c] = 1, int(seen > 0)
            if token == special["sep"]:
                seen += 1
            if token in (special["pad"], special["cls"], special["sep"]) or rng.random() >= 0.15:
                continue
            labels[r, c] = token
            fate = rng.integers(10)
            if fate < 8:
                x[r, c] = special["mask"]
            elif fate == 8:
                x[r, c] = ordinary_ids[rng.integers(len(ordinary_ids))]
    return {"input_ids": x, "labels": labels, "token_type_ids": segments, "attention_mask": mask}


def mended_lists(ids, rng, special, ordinary_ids):
    ordinary = set(ordinary_ids.tolist())
    places = [(r, c) for r, row in enumerate(ids.tolist()) for c, token in enumerate(row) if token in ordinary]
    x, labels = ids.tolist(), [[-100] * ids.shape[1] for _ in ids]
    for r, c in places:
        if rng.random() < 0.15:
            labels[r][c] = x[r][c]
            x[r][c] = [special["mask"], int(rng.choice(ordinary_ids)), x[r][c]][rng.choice(3, p=[0.8, 0.1, 0.1])]
    segments = []
    for row in ids.tolist():
        first = row.index(special["sep"])
        last = row.index(special["sep"], first + 1)
        segments.append([int(first < c <= last) for c in range(len(row))])
    mask = [[token != special["pad"] for token in row] for row in ids.tolist()]
    return {"attention_mask": mask, "token_type_ids": segments, "labels": labels, "input_ids": x}


def mended_torch(ids, rng, special, ordinary_ids):
    x = torch.from_numpy(ids)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    real = x != special["pad"]
    sep = x == special["sep"]
    words = real & ~sep & (x != special["cls"])
    chosen = words & (torch.rand(x.shape, generator=generator) < 0.15)
    fate = torch.rand(x.shape, generator=generator)
    other = torch.from_numpy(ordinary_ids)[torch.randint(len(ordinary_ids), x.shape, generator=generator)]
    x_bar = torch.where(chosen & (fate < 0.8), special["mask"], x)
    x_bar = torch.where(chosen & (fate >= 0.9), other, x_bar)
    return {
        "input_ids": x_bar,
        "labels": x.masked_fill(~chosen, -100),
        "token_type_ids": ((sep.cumsum(1) - sep.long()) > 0).long() * real,
        "attention_mask": real,
    }


def name_loops(batch, special):
    structure = {special["cls"], special["sep"], special["pad"]}
    never = structure | {special["unk"]}
    rows = [batch[name].tolist() for name in ("true_ids", "input_ids", "labels", "attention_mask", "token_type_ids")]
    places = [place for row in zip(*rows, strict=True) for place in zip(*row, strict=True)]
    found = set()
    words = [place for place in places if place[0] not in structure]
    if all(label != -100 for _, _, label, _, _ in words):
        found.add("labels_outside_selection")
    for true, x, label, visible, _ in places:
        if true in structure:
            if x != true or label != -100:
                found.add("specials_selected")
        elif x in never:
            found.add("random_from_specials")
        if label == special["mask"] and x == special["mask"]:
            found.add("labels_after_corruption")
        if true == special["pad"] and visible:
            found.add("no_attention_mask")
    if not any(segment for *_, segment in places):
        found.add("segments_all_zero")
    if len(np.unique(batch["next_sentence_label"])) == 1:
        found.add("nsp_labels_constant")
    return found.pop() if found else "none"


def name_torch(batch, special):
    b = {name: torch.from_numpy(array) for name, array in batch.items()}
    x, true, labels = b["input_ids"], b["true_ids"], b["labels"]
    padding = true == special["pad"]
    ends = padding | (true == special["cls"]) | (true == special["sep"])
    if bool(b["attention_mask"][padding].any()):
        return "no_attention_mask"
    if int(b["token_type_ids"].sum()) == 0:
        return "segments_all_zero"
    if float(b["next_sentence_label"].float().std()) == 0:
        return "nsp_labels_constant"
    if bool((labels[ends] != -100).any()) or not torch.equal(x[ends], true[ends]):
        return "specials_selected"
    if int((labels != -100).sum()) == int((~ends).sum()):
        return "labels_outside_selection"
    asked = labels != -100
    if not torch.equal(labels[asked], true[asked]):
        return "labels_after_corruption"
    wrong = sum((x[~ends] == special[name]).sum() for name in ("pad", "unk", "cls", "sep"))
    return "random_from_specials" if int(wrong) else "none"


def name_counts(batch, special):
    true, x, labels = batch["true_ids"], batch["input_ids"], batch["labels"]
    word = (true != special["pad"]) & (true != special["cls"]) & (true != special["sep"])
    holes = (x == special["mask"]) & (labels != -100)
    counts = {
        "labels_after_corruption": np.count_nonzero(labels[holes & word] == special["mask"]),
        "labels_outside_selection": np.mean(labels[word] != -100) == 1,
        "specials_selected": np.count_nonzero(labels[~word] != -100) + np.count_nonzero(x[~word] != true[~word]),
        "random_from_specials": sum(np.count_nonzero(x[word] == special[k]) for k in ("pad", "unk", "cls", "sep")),
        "no_attention_mask": np.count_nonzero(batch["attention_mask"][true == special["pad"]]),
        "segments_all_zero": batch["token_type_ids"].max() == 0,
        "nsp_labels_constant": np.ptp(batch["next_sentence_label"]) == 0,
    }
    return next((name for name, count in counts.items() if count), "none")


def paired_loops(new, old, t):
    d = [float(a) - float(b) for a, b in zip(new, old, strict=True)]
    mean = sum(d) / len(d)
    variance = sum((x - mean) ** 2 for x in d) / (len(d) - 1)
    return mean, t * (variance / len(d)) ** 0.5


def paired_statistics(new, old, t):
    d = (new - old).tolist()
    return [statistics.mean(d), t * statistics.stdev(d) / len(d) ** 0.5]


def paired_torch(new, old, t):
    d = torch.from_numpy(new) - torch.from_numpy(old)
    return d.mean(), t * d.std() / d.numel() ** 0.5


VARIANTS = {
    "16.10": (mended_loops, mended_lists, mended_torch),
    "16.11": (name_loops, name_torch, name_counts),
    "16.12": (paired_loops, paired_statistics, paired_torch),
}
