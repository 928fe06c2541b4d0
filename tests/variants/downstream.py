"""Right solutions of exercise set 14, written in other ways."""

from collections import Counter

import numpy as np
import torch


def shared_files_loop(a, b):
    seen = []
    for row in a:
        if row[2] not in seen and any(row[2] == other[2] for other in b):
            seen.append(row[2])
    return len(seen)


def shared_files_counters(a, b):
    return len(Counter(file for *_, file in a) & Counter(file for *_, file in b))


def shared_files_array(a, b):
    return np.intersect1d([row[2] for row in a], [row[2] for row in b]).size


def align_array(pieces, word_labels, length):
    labels = np.full(length, -100, dtype=np.int32)
    place = 1
    for word, label in zip(pieces, word_labels, strict=True):
        if word and place < length - 1:
            labels[place] = label
        place += len(word)
    return labels


def align_tensor(pieces, word_labels, length):
    starts = 1 + np.cumsum([0, *(len(word) for word in pieces)])[:-1]
    labels = torch.full((length,), -100)
    for start, word, label in zip(starts, pieces, word_labels, strict=True):
        if len(word) > 0 and start <= length - 2:
            labels[int(start)] = label
    return labels


def align_flat(pieces, word_labels, length):
    flat = [
        label if k == 0 else -100 for word, label in zip(pieces, word_labels, strict=False) for k in range(len(word))
    ]
    flat = flat[: length - 2]
    return tuple([-100, *flat, -100] + [-100] * (length - 2 - len(flat)))


def replace_head_float32(weights, labels, rng, prefix):
    new = {}
    for name in weights:
        short = name[len(prefix) :]
        if short.split(".")[0] == "encoder":
            new[short] = weights[name].astype(np.float32)
    for part in ("bias", "weight"):
        new["pooler." + part] = weights[prefix + "nsp.pooler." + part]
    size = new["pooler.weight"].shape[1]
    new["classifier.bias"] = [0.0] * labels
    new["classifier.weight"] = (0.02 * rng.standard_normal((labels, size))).astype(np.float32)
    return new


def replace_head_torch(weights, labels, rng, prefix):
    state = {name.replace(prefix, "", 1): torch.from_numpy(array) for name, array in weights.items()}
    torch.manual_seed(int(rng.integers(2**31)))
    layer = torch.nn.Linear(state["nsp.pooler.bias"].numel(), labels)
    torch.nn.init.normal_(layer.weight, std=0.02)
    torch.nn.init.zeros_(layer.bias)
    for name in [name for name in state if name.startswith(("mlm", "nsp.relation"))]:
        del state[name]
    state = {name.replace("nsp.", ""): tensor for name, tensor in state.items()}
    return {**state, "classifier.weight": layer.weight, "classifier.bias": layer.bias}


def replace_head_rows(weights, labels, rng, prefix):
    hidden = weights[f"{prefix}nsp.pooler.bias"].size
    rows = [[rng.normal() * 0.02 for _ in range(hidden)] for _ in range(labels)]
    kept = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix + "encoder.")}
    return {
        "classifier.weight": np.array(rows),
        "classifier.bias": np.zeros(labels, dtype=int),
        "pooler.weight": weights[prefix + "nsp.pooler.weight"].copy(),
        "pooler.bias": weights[prefix + "nsp.pooler.bias"].copy(),
        **kept,
    }


def not_copied_set(network, pretrained):
    theirs = {name.removeprefix("nsp."): array for name, array in pretrained.items()}
    return sorted({n for n in network if "classifier" not in n and (network[n] != theirs[n]).any()})


def not_copied_torch(network, pretrained):
    found = []
    for name in sorted(network):
        old = {"pooler.weight": "nsp.pooler.weight", "pooler.bias": "nsp.pooler.bias"}.get(name, name)
        if old in pretrained and not torch.equal(torch.tensor(network[name]), torch.tensor(pretrained[old])):
            found.append(name)
    return found


def not_copied_close(network, pretrained):
    names = [name for name in network if name.split(".")[0] in ("encoder", "pooler")]
    homes = [("nsp." if name.startswith("pooler") else "") + name for name in names]
    return tuple(
        sorted(n for n, home in zip(names, homes, strict=False) if not np.allclose(network[n], pretrained[home]))
    )


def macro_f1_loop(confusion):
    total = 0.0
    for k in range(len(confusion)):
        right, true, answered = confusion[k][k], sum(confusion[k]), sum(row[k] for row in confusion)
        total += 2 * right / (true + answered) if right else 0.0
    return total / len(confusion)


def macro_f1_harmonic(confusion):
    scores = []
    for k in range(confusion.shape[0]):
        if confusion[k, k] == 0:
            scores.append(0.0)
            continue
        precision = confusion[k, k] / confusion[:, k].sum()
        recall = confusion[k, k] / confusion[k].sum()
        scores.append(2 * precision * recall / (precision + recall))
    return np.float32(np.mean(scores))


def macro_f1_torch(confusion):
    table = torch.tensor(confusion).double()
    both = table.sum(0) + table.sum(1)
    return torch.where(both > 0, 2 * table.diag() / both.clamp(min=1), 0.0).mean()


VARIANTS = {
    "14.2": (shared_files_loop, shared_files_counters, shared_files_array),
    "14.7": (align_array, align_tensor, align_flat),
    "14.10": (replace_head_float32, replace_head_torch, replace_head_rows),
    "14.13": (not_copied_set, not_copied_torch, not_copied_close),
    "14.14": (macro_f1_loop, macro_f1_harmonic, macro_f1_torch),
}
