"""Right solutions of exercise set 10, written in other ways."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import log_softmax


def _average_loop(h, attention_mask):
    rows = []
    for states, mask in zip(h, attention_mask, strict=True):
        real = [state for state, one in zip(states, mask, strict=True) if one]
        rows.append(sum(real) / len(real))
    return torch.stack(rows)


def _average_numpy(h, attention_mask):
    h, mask = h.numpy(), attention_mask.numpy().astype(bool)
    return np.mean(h, axis=1, where=mask[:, :, None])


def _average_einsum(h, attention_mask):
    weights = attention_mask / attention_mask.sum(1, keepdim=True)
    return torch.einsum("bs,bsh->bh", weights, h).tolist()


def _scores_loop(e, h, selected, E, b):
    rows = []
    for i in range(len(h)):
        for j in range(h.shape[1]):
            if selected[i, j]:
                rows.append([float(h[i, j] @ E[v]) + float(b[v]) for v in range(len(E))])
    return rows


def _scores_late(e, h, selected, E, b):
    return F.linear(h, E, b)[selected]


def _scores_numpy(e, h, selected, E, b):
    return np.einsum("mh,vh->mv", h.numpy()[np.nonzero(selected.numpy())], E.numpy()) + b.numpy()


def _nsp_numpy(h, W_2, w_2, W_3, w_3, labels):
    h, W_2, w_2, W_3, w_3, labels = (x.numpy() for x in (h, W_2, w_2, W_3, w_3, labels))
    scores = np.tanh(h[:, 0] @ W_2.T + w_2) @ W_3.T + w_3
    return -log_softmax(scores, axis=1)[np.arange(len(labels)), labels].mean()


def _nsp_loop(h, W_2, w_2, W_3, w_3, labels):
    losses = []
    for states, label in zip(h, labels.tolist(), strict=True):
        scores = W_3 @ torch.tanh(W_2 @ states[0] + w_2) + w_3
        losses.append(-scores.softmax(0)[label].log())
    return float(sum(losses) / len(losses))


def _nsp_linear(h, W_2, w_2, W_3, w_3, labels):
    scores = F.linear(torch.tanh(F.linear(h, W_2, w_2)), W_3, w_3)[:, 0].log_softmax(-1)
    return F.nll_loss(scores, labels)


def _both_loop(mlm_logits, labels, nsp_logits, next_sentence_label):
    words = []
    for scores, ids in zip(mlm_logits.double(), labels.tolist(), strict=True):
        words += [float(-row.log_softmax(0)[one]) for row, one in zip(scores, ids, strict=True) if one != -100]
    pairs = [float(-row.log_softmax(0)[c]) for row, c in zip(nsp_logits, next_sentence_label.tolist(), strict=True)]
    mlm = sum(words) / len(words) if words else 0.0
    nsp = sum(pairs) / len(pairs)
    return [mlm + nsp, mlm, nsp]


def _both_numpy(mlm_logits, labels, nsp_logits, next_sentence_label):
    labels = labels.numpy()
    sequence, place = np.nonzero(labels != -100)
    chosen = log_softmax(mlm_logits.numpy(), axis=-1)[sequence, place, labels[sequence, place]]
    mlm = -chosen.sum() / max(len(chosen), 1)
    nsp = -np.mean(log_softmax(nsp_logits.numpy(), -1)[range(len(labels)), next_sentence_label.numpy()])
    return np.array([mlm + nsp, mlm, nsp])


def _both_ignoring(mlm_logits, labels, nsp_logits, next_sentence_label):
    total = F.cross_entropy(mlm_logits.flatten(0, 1), labels.flatten(), reduction="sum")
    mlm = total / (labels >= 0).sum().clamp(min=1)
    nsp = F.cross_entropy(nsp_logits, next_sentence_label)
    return mlm + nsp, mlm, nsp


def _both_nan_to_zero(mlm_logits, labels, nsp_logits, next_sentence_label):
    mlm = F.cross_entropy(mlm_logits.transpose(1, 2), labels)
    mlm = torch.zeros(()) if mlm.isnan() else mlm
    nsp = F.cross_entropy(nsp_logits, next_sentence_label)
    return mlm.item() + nsp.item(), mlm.item(), nsp.item()


def _gradients_backward(K, e, E, W, labels, c):
    found = []
    for weights in ((1, 0), (0, 1), (1, 1)):
        K = K.detach().clone().requires_grad_(True)
        h = e @ K.T
        mlm = F.cross_entropy(h @ E.T, labels, ignore_index=-100)
        nsp = -torch.log_softmax(W @ h[0], 0)[c]
        (weights[0] * mlm + weights[1] * nsp).backward()
        found.append(K.grad)
    return tuple(found)


def _gradients_formula(K, e, E, W, labels, c):
    K, e, E, W = (x.numpy().astype(float) for x in (K, e, E, W))
    by_mlm, places = np.zeros_like(K), np.flatnonzero(labels.numpy() != -100)
    for i in places:
        p = np.exp(log_softmax(E @ K @ e[i]))
        p[int(labels[i])] -= 1
        by_mlm += np.outer(E.T @ p, e[i]) / len(places)
    p = np.exp(log_softmax(W @ K @ e[0]))
    p[c] -= 1
    by_nsp = np.outer(W.T @ p, e[0])
    return [by_mlm, by_nsp, by_mlm + by_nsp]


def _gradients_clearing(K, e, E, W, labels, c):
    K.requires_grad_()
    chosen = labels != -100
    found = []
    for _ in range(2):
        h = torch.nn.functional.linear(e, K)
        mlm = (h @ E.T)[chosen].log_softmax(1)[range(int(chosen.sum())), labels[chosen]].mean().neg()
        nsp = (W @ h[0]).logsumexp(0) - W[c] @ h[0]
        (nsp if found else mlm).backward()
        found.append(K.grad.clone())
        K.grad = None
    return np.stack([found[0], found[1], found[0] + found[1]])


VARIANTS = {
    "10.4": (_average_loop, _average_numpy, _average_einsum),
    "10.8": (_scores_loop, _scores_late, _scores_numpy),
    "10.9": (_nsp_numpy, _nsp_loop, _nsp_linear),
    "10.10": (_both_loop, _both_numpy, _both_ignoring, _both_nan_to_zero),
    "10.11": (_gradients_backward, _gradients_formula, _gradients_clearing),
}
