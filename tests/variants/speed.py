"""Right solutions of exercise set 12, written in other ways."""

import math

import numpy as np
import torch


def combine_in_loops(losses, gradients, counts):
    total = sum(int(n) for n in counts)
    loss, gradient = 0.0, [0.0] * gradients.shape[1]
    for r, n in enumerate(counts):
        if n:
            loss += float(losses[r]) * int(n) / total
            gradient = [g + float(x) * int(n) / total for g, x in zip(gradient, gradients[r], strict=True)]
    return loss, gradient


def combine_by_average(losses, gradients, counts):
    if counts.sum() == 0:
        return 0.0, np.zeros(gradients.shape[1])
    return np.average(losses, weights=counts), np.average(gradients, axis=0, weights=counts)


def combine_in_torch(losses, gradients, counts):
    weights = torch.as_tensor(counts, dtype=torch.float32)
    weights = weights / weights.sum().clamp(min=1)
    loss = (torch.as_tensor(losses).float() * weights).sum()
    return [loss, torch.einsum("r,rn->n", weights, torch.as_tensor(gradients).float())]


def blocks_by_the_whole(scores, values, block):
    ends = [min(i + block, len(scores)) for i in range(0, len(scores), block)]
    mus = [scores[:end].max() for end in ends]
    sigmas = [np.exp(scores[:end] - mu).sum() for end, mu in zip(ends, mus, strict=True)]
    weights = np.exp(scores - scores.max())
    return mus, sigmas, weights @ values / weights.sum()


def blocks_in_torch(scores, values, block):
    scores, values = torch.as_tensor(scores), torch.as_tensor(values)
    mu, sigma, u = torch.tensor(-torch.inf, dtype=torch.float64), 0.0, 0.0
    mus, sigmas = [], []
    for s, v in zip(scores.split(block), values.split(block), strict=True):
        new = torch.maximum(mu, s.amax())
        shrink, e = (mu - new).exp(), (s - new).exp()
        mu, sigma, u = new, sigma * shrink + e.sum(), u * shrink + e @ v
        mus.append(mu)
        sigmas.append(sigma)
    return torch.stack(mus), torch.stack(sigmas), u / sigma


def blocks_key_by_key(scores, values, block):
    mu, sigma, u = float("-inf"), 0.0, [0.0] * values.shape[1]
    mus, sigmas = [], []
    for j, (s, v) in enumerate(zip(scores.tolist(), values.tolist(), strict=True)):
        new = max(mu, s)
        shrink = math.exp(mu - new)
        sigma = sigma * shrink + math.exp(s - new)
        u = [a * shrink + math.exp(s - new) * b for a, b in zip(u, v, strict=True)]
        mu = new
        if (j + 1) % block == 0 or j == len(scores) - 1:
            mus.append(mu)
            sigmas.append(sigma)
    return mus, sigmas, [a / sigma for a in u]


def count_in_numpy(H, F, V, L, lengths, selected):
    n, m = np.array(lengths), np.array(selected)
    r = m + 1
    projections = 2 * H * H * ((L - 1) * 4 * n + 2 * n + 2 * r)
    pairs = (L - 1) * n * n + r * n
    heads = 2 * H * (H + V) * m + 2 * H * (H + 2)
    return (projections + 4 * H * pairs + 4 * H * F * ((L - 1) * n + r) + heads).sum()


def count_product_by_product(H, F, V, L, lengths, selected):
    def product(m, k, n):
        return 2 * m * k * n

    total = 0
    for n, m in zip(lengths, selected, strict=True):
        for layer in range(L):
            asks = n if layer < L - 1 else m + 1
            total += product(asks, H, H) * 2 + product(n, H, H) * 2
            total += product(asks, H, n) + product(asks, n, H)
            total += product(asks, H, F) + product(asks, F, H)
        total += product(m, H, H) + product(m, H, V) + product(1, H, H) + product(1, H, 2)
    return total


def count_in_floats(H, F, V, L, lengths, selected):
    T, M, B = float(sum(lengths)), float(sum(selected)), len(lengths)
    squares = sum(n**2 for n in lengths)
    read = sum((1 + m) * n for n, m in zip(lengths, selected, strict=True))
    layers = (L - 1) * (8 * T * H**2 + 4 * squares * H + 4 * T * H * F)
    last = 4 * T * H**2 + (B + M) * (4 * H**2 + 4 * H * F) + 4 * H * read
    return layers + last + 2 * M * H * (H + V) + 2 * B * H * (H + 2)


VARIANTS = {
    "12.8": (combine_in_loops, combine_by_average, combine_in_torch),
    "12.9": (blocks_by_the_whole, blocks_in_torch, blocks_key_by_key),
    "12.12": (count_in_numpy, count_product_by_product, count_in_floats),
}
