"""Other right solutions of the tasks on embeddings, each written in another way."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F


def embed_with_layer_norm(ids, segments, E, P, G, gamma, beta, eps):
    S = ids.shape[1]
    y = F.embedding(ids, E) + F.embedding(torch.arange(S), P)[None] + F.embedding(segments, G)
    return F.layer_norm(y, (E.shape[1],), gamma, beta, eps)


def embed_in_loops(ids, segments, E, P, G, gamma, beta, eps):
    rows = []
    for tokens, kinds in zip(ids.tolist(), segments.tolist(), strict=True):
        row = []
        for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True)):
            y = [float(a + b + c) for a, b, c in zip(E[token], P[i], G[kind], strict=True)]
            mean = sum(y) / len(y)
            variance = sum((number - mean) ** 2 for number in y) / len(y)
            normed = [(number - mean) / (variance + eps) ** 0.5 for number in y]
            row.append([float(g) * number + float(b) for g, number, b in zip(gamma, normed, beta, strict=True)])
        rows.append(row)
    return rows


def embed_in_numpy(ids, segments, E, P, G, gamma, beta, eps):
    ids, segments = ids.numpy(), segments.numpy()
    E, P, G, gamma, beta = (tensor.numpy().astype(np.float64) for tensor in (E, P, G, gamma, beta))
    one_hot = np.eye(len(E))[ids]
    y = one_hot @ E + P[np.newaxis, : ids.shape[1]] + np.where(segments[..., None] == 1, G[1], G[0])
    return (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + eps) * gamma + beta


def gradient_by_index_add(ids, asked, vocab_size):
    return torch.zeros(vocab_size, asked.shape[2]).index_add_(0, ids.reshape(-1), asked.reshape(-1, asked.shape[2]))


def gradient_by_one_hot(ids, asked, vocab_size):
    one_hot = F.one_hot(ids, vocab_size).double()
    return torch.einsum("bsv,bsh->vh", one_hot, asked.double())


def gradient_in_numpy(ids, asked, vocab_size):
    gradient = np.zeros((vocab_size, asked.shape[-1]))
    np.add.at(gradient, ids.numpy(), asked.numpy())
    return gradient


def gradient_by_autograd(ids, asked, vocab_size):
    table = torch.nn.Parameter(torch.randn(vocab_size, asked.shape[-1]))
    (table[ids] * asked).sum().backward()
    return table.grad


def segments_in_loops(ids, sep_id, pad_id):
    result = []
    for row in ids.tolist():
        seen, segments = 0, []
        for token in row:
            segments.append(0 if token == pad_id else seen)
            seen += token == sep_id
        result.append(segments)
    return result


def segments_by_counting(ids, sep_id, pad_id):
    before = [[list(row[:i]).count(sep_id) for i in range(len(row))] for row in ids]
    return (np.array(before) * (ids != pad_id)).astype(np.int8)


def segments_in_torch(ids, sep_id, pad_id):
    ids = torch.from_numpy(ids)
    behind_first = F.pad((ids == sep_id).long().cumsum(1)[:, :-1], (1, 0)) > 0
    return behind_first & (ids != pad_id)


VARIANTS = {
    "08.2": (embed_with_layer_norm, embed_in_loops, embed_in_numpy),
    "08.8": (gradient_by_index_add, gradient_by_one_hot, gradient_in_numpy, gradient_by_autograd),
    "08.11": (segments_in_loops, segments_by_counting, segments_in_torch),
}
