"""Right solutions of exercise set 13, written in other ways."""

import math
from collections import Counter

import numpy as np
import torch


def top_in_numpy(scores, words, k):
    z = scores.numpy()
    p = np.exp(z - z.max())
    p /= p.sum()
    return [[words[i], p[i]] for i in p.argsort()[::-1][:k]]


def top_sorted(scores, words, k):
    z = [float(s) for s in scores]
    largest = max(z)
    total = sum(math.exp(s - largest) for s in z)
    pairs = [(word, math.exp(s - largest) / total) for word, s in zip(words, z, strict=True)]
    return sorted(pairs, key=lambda pair: pair[1], reverse=True)[:k]


def top_by_logs(scores, words, k):
    logs = scores.double() - torch.logsumexp(scores.double(), 0)
    order = sorted(range(len(words)), key=lambda i: -logs[i])
    return [(words[i], logs[i].exp()) for i in order[:k]]


def table_in_loops(confidence, right, bins):
    answers = sorted(zip(confidence.tolist(), right.tolist(), strict=True))
    size, more = divmod(len(answers), bins)
    rows, ece, start = [], 0.0, 0
    for b in range(bins):
        part = answers[start : start + size + (b < more)]
        start += len(part)
        claimed, kept = sum(p for p, _ in part) / len(part), sum(hit for _, hit in part) / len(part)
        rows.append([len(part), claimed, kept])
        ece += len(part) * abs(kept - claimed)
    return rows, ece / len(answers)


def table_as_an_array(confidence, right, bins):
    order = confidence.argsort()
    parts = list(zip(np.array_split(confidence[order], bins), np.array_split(right[order], bins), strict=True))
    table = np.array([[len(p), p.mean(), hits.mean()] for p, hits in parts])
    return table, np.average(np.abs(table[:, 2] - table[:, 1]), weights=table[:, 0])


def table_in_torch(confidence, right, bins):
    values, order = torch.as_tensor(confidence).sort()
    hits = torch.as_tensor(right)[order].double()
    rows, ece = [], torch.zeros(())
    for p, h in zip(values.tensor_split(bins), hits.tensor_split(bins), strict=True):
        rows.append((len(p), p.mean(), h.mean()))
        ece = ece + (p.sum() - h.sum()).abs() / len(hits)
    return rows, ece


def judge_with_counter(answers, labels, fitted, coin_answers, coin_labels):
    guess = Counter(fitted.tolist()).most_common(1)[0][0]
    accuracy = sum(a == b for a, b in zip(answers, labels, strict=True)) / len(labels)
    coins = sum(a == b for a, b in zip(coin_answers, coin_labels, strict=True)) / len(coin_labels)
    majority = labels.tolist().count(guess) / len(labels)
    return {"accuracy": accuracy, "majority": majority, "selectivity": accuracy - coins}


def judge_in_torch(answers, labels, fitted, coin_answers, coin_labels):
    answers, labels, fitted = (torch.as_tensor(x) for x in (answers, labels, fitted))
    accuracy = (answers == labels).float().mean()
    coins = (torch.as_tensor(coin_answers) == torch.as_tensor(coin_labels)).float().mean()
    guess = fitted.mode().values
    return {
        "majority": (labels == guess).float().mean(),
        "selectivity": accuracy - coins,
        "accuracy": accuracy,
    }


def judge_with_unique(answers, labels, fitted, coin_answers, coin_labels):
    values, counts = np.unique(fitted, return_counts=True)
    guesses = np.full_like(labels, values[counts.argmax()])

    def share(given, right):
        return np.count_nonzero(given == right) / len(right)

    accuracy = share(answers, labels)
    return {
        "accuracy": accuracy,
        "majority": share(guesses, labels),
        "selectivity": accuracy - share(coin_answers, coin_labels),
    }


VARIANTS = {
    "13.11": (top_in_numpy, top_sorted, top_by_logs),
    "13.12": (table_in_loops, table_as_an_array, table_in_torch),
    "13.14": (judge_with_counter, judge_in_torch, judge_with_unique),
}
