"""Right solutions of exercise set 11, written in other ways."""

from itertools import accumulate

import numpy as np
import torch


def stop_counting(held_out, training, patience):
    lowest, best, waited = float("inf"), 0, 0
    for k in range(len(held_out)):
        if held_out[k] < lowest:
            lowest, best, waited = held_out[k], k, 0
        else:
            waited += 1
        if waited >= patience:
            return [best, k]
    return [best, len(held_out) - 1]


def stop_with_accumulate(held_out, training, patience):
    lowest = list(accumulate(held_out, min))
    for k in range(patience, len(held_out)):
        if lowest[k - patience] == lowest[k]:
            return held_out.index(lowest[k]), k
    return held_out.index(lowest[-1]), len(held_out) - 1


def stop_with_argmin(held_out, training, patience):
    losses = np.array(held_out)
    last = len(losses) - 1
    for k in range(len(losses)):
        if k - losses[: k + 1].argmin() >= patience:
            last = k
            break
    return np.array([losses[: last + 1].argmin(), last])


def rate_as_minimum(step, peak, warmup, total):
    up = (step + 1) / warmup if warmup else 1.0
    down = 1 - (step - warmup) / (total - warmup) if step >= warmup else 1.0
    return peak * min(up, down, 1.0)


def rate_interpolated(step, peak, warmup, total):
    return (
        np.interp(step, [-1, warmup - 1, warmup, total], [0.0, peak, peak, 0.0])
        if warmup
        else peak * (1 - step / total)
    )


def rate_in_float32(step, peak, warmup, total):
    share = torch.tensor((step + 1) / warmup if step < warmup else (total - step) / (total - warmup))
    return (peak * share).float()


def update_in_a_loop(theta, grad_mlm, grad_nsp, m, v, t, rate, decay):
    new = ([], [], [])
    for w, a, b, mean, square in zip(theta, grad_mlm, grad_nsp, m, v, strict=True):
        g = a + b
        mean = 0.9 * mean + (1 - 0.9) * g
        square = 0.98 * square + (1 - 0.98) * g * g
        size = (square / (1 - 0.98**t)) ** 0.5 + 1e-6
        new[0].append(w - rate * decay * w - rate * mean / (1 - 0.9**t) / size)
        new[1].append(mean)
        new[2].append(square)
    return new


def update_in_torch(theta, grad_mlm, grad_nsp, m, v, t, rate, decay):
    theta, g, m, v = (torch.as_tensor(x) for x in (theta, grad_mlm + grad_nsp, m, v))
    m, v = torch.lerp(m, g, 0.1), torch.lerp(v, g.square(), 0.02)
    theta = theta * (1 - rate * decay)
    return theta - rate * (m / (1 - 0.9**t)) / ((v / (1 - 0.98**t)).sqrt() + 1e-6), m, v


def update_by_the_optimizer(theta, grad_mlm, grad_nsp, m, v, t, rate, decay):
    p = torch.nn.Parameter(torch.as_tensor(theta))
    optimizer = torch.optim.AdamW([p], lr=rate, betas=(0.9, 0.98), eps=1e-6, weight_decay=decay)
    state = {"step": torch.tensor(t - 1.0), "exp_avg": torch.as_tensor(m), "exp_avg_sq": torch.as_tensor(v)}
    optimizer.state[p] = state
    p.grad = torch.as_tensor(grad_mlm) + torch.as_tensor(grad_nsp)
    optimizer.step()
    return p.detach(), optimizer.state[p]["exp_avg"], optimizer.state[p]["exp_avg_sq"]


def update_in_float32(theta, grad_mlm, grad_nsp, m, v, t, rate, decay):
    theta, grad_mlm, grad_nsp, m, v = (x.astype(np.float32) for x in (theta, grad_mlm, grad_nsp, m, v))
    g = np.add(grad_mlm, grad_nsp)
    m, v = m + 0.1 * (g - m), v + 0.02 * (g * g - v)
    return theta - rate * (decay * theta + (m / (1 - 0.9**t)) / (1e-6 + np.sqrt(v / (1 - 0.98**t)))), m, v


VARIANTS = {
    "11.6": (stop_counting, stop_with_accumulate, stop_with_argmin),
    "11.7": (rate_as_minimum, rate_interpolated, rate_in_float32),
    "11.8": (update_in_a_loop, update_in_torch, update_by_the_optimizer, update_in_float32),
}
