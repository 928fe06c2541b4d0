"""What the random functions of set 03 must keep to: properties of each result, and counts within binomial bounds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mlmkit.grading.chance import binomial_bounds
from mlmkit.grading.comparing import shown
from mlmkit.grading.tasks import Call

Array = np.ndarray[Any, Any]


def _whole(got: Any, shape: tuple[int, ...]) -> Array | None:
    """The result as an array of whole numbers of this shape, or None."""
    try:
        array = np.asarray(got)
    except ValueError:
        return None
    if array.dtype.kind not in "biuf" or array.shape != shape or not np.isfinite(array).all():
        return None
    return array.astype(np.int64) if (array == np.floor(array)).all() else None


def _off(found: float, trials: int, probability: float, error: float = 1e-10) -> bool:
    """Whether a count is one that chance does not give."""
    low, high = binomial_bounds(trials, min(probability, 1.0), error)
    return not low <= found <= high


def _shape_problem(call: Call, shape: tuple[int, ...], what: str) -> str:
    return f"the result should be {what} of shape {shape}, and is {shown(call.got)}"


# Two at a time: do they happen together as often as if each were drawn by itself?

Event = tuple[Array, Array, float]
"""Where it happened, where it could happen, and with what probability; each array (B, S)."""


def _together(pairs: Iterable[tuple[Event, Event]]) -> tuple[int, int, float]:
    """How often both of a pair happened, how often they could, and the mean probability that both do."""
    found, trials, expected = 0, 0, 0.0
    for (one, could_one, p), (other, could_other, q) in pairs:
        both = could_one & could_other
        found += int((one & other & both).sum())
        trials += int(both.sum())
        expected += p * q * int(both.sum())
    return found, trials, expected / max(trials, 1)


def _rows(event: Event, step: slice) -> Event:
    return event[0][step], event[1][step], event[2]


def _columns(event: Event, step: slice) -> Event:
    return event[0][:, step], event[1][:, step], event[2]


def _coincide(events: Sequence[Event]) -> str:
    """Which things are drawn together that should be drawn each by itself: "columns", "rows", "calls" or ""."""
    odd, even = slice(1, None, 2), slice(0, -1, 2)
    ways = {
        "columns": [(_rows(event, even), _rows(event, odd)) for event in events],
        "rows": [(_columns(event, even), _columns(event, odd)) for event in events],
        "calls": list(zip(events[:-1:2], events[1::2], strict=False)),
    }
    for name, pairs in ways.items():
        found, trials, probability = _together(pairs)
        if found > binomial_bounds(trials, probability, 1e-12)[1]:
            return name
    return ""


# 03.10

TOGETHER = {
    "columns": "two rows choose the same positions too often: draw a number for each position of each row",
    "rows": "two neighbors are chosen together too often: draw a number for each position, not one for a row",
    "calls": "two calls choose the same positions too often: draw from `rng`, which differs from call to call",
}


def verify_selection(calls: Sequence[Call]) -> str | None:
    """Only candidates, the right share, each position drawn by itself."""
    results = []
    for call in calls:
        candidates, rate = call.inputs["candidates"], call.inputs["rate"]
        got = _whole(call.got, candidates.shape)
        if got is None or not np.isin(got, (0, 1)).all():
            return _shape_problem(call, candidates.shape, "a boolean array")
        if (got.astype(bool) & ~candidates).any():
            return "a position was selected that is no candidate: special tokens and padding must never be predicted"
        results.append((got.astype(bool), candidates, rate))
    long = [event for event in results if event[1].shape[1] > 100]
    found, trials, _ = _counted(long)
    share = found / trials  # a rate that is too high is no coincidence
    if share < 0.9 and any(_whole_row(chosen, could) for chosen, could, _ in long):
        return TOGETHER["rows"]
    if shared := _coincide([(chosen, could, max(rate, share)) for chosen, could, rate in long]):
        return TOGETHER[shared]
    return _rate_problem(long) or next(filter(None, (_rate_problem([event]) for event in results)), None)


def _whole_row(happened: Array, could: Array) -> bool:
    """Whether in some long row it happened wherever it could: chance does not do that."""
    return bool((((happened & could).sum(axis=1) == could.sum(axis=1)) & (could.sum(axis=1) > 30)).any())


def _counted(events: Sequence[Event]) -> tuple[int, int, float]:
    """How many were selected, how many could be, and how many are expected."""
    found = sum(int(chosen.sum()) for chosen, _, _ in events)
    trials = sum(int(could.sum()) for _, could, _ in events)
    return found, trials, sum(rate * int(could.sum()) for _, could, rate in events)


def _rate_problem(events: Sequence[Event]) -> str | None:
    found, trials, expected = _counted(events)
    if not trials or not _off(found, trials, expected / trials):
        return None
    width = max(int(candidates.sum(axis=1).max()) for _, candidates, _ in events)
    short = f" (rows with {width} candidates: rounding the number in each row misses the rate)"
    says = f"{found / trials:.1%} of the candidates were selected, and {expected / trials:.1%} were asked for"
    return says + (short if width < 10 and 0 < expected < trials else "")


# 03.11

SHARED = {
    "columns": "tokens below each other share their fate: each token of each row needs its own draw",
    "rows": "tokens of one row share their fate: each token needs its own draw, not each sequence",
    "calls": "tokens share their fate from call to call: draw from `rng`, which differs from call to call",
}


def verify_corruption(calls: Sequence[Call]) -> str | None:
    """Unchanged outside A(x), never a special token, 80/10/10 with a fate for each token."""
    results = []
    for call in calls:
        got = _whole(call.got, call.inputs["ids"].shape)
        if got is None:
            return _shape_problem(call, call.inputs["ids"].shape, "an array of integers")
        if problem := _not_allowed(call, got):
            return problem
        results.append(got)
    long = [(call, got) for call, got in zip(calls, results, strict=True) if len(call.inputs["ordinary_ids"]) == 30]
    shares = _shares(long)
    masked = shares[0] / sum(shares)
    unmasked = [(got != call.inputs["mask_id"], call.inputs["selected"], 0.2) for call, got in long]
    if masked > 0.4 and any(_whole_row(kept, selected) for kept, selected, _ in unmasked):
        return SHARED["rows"]
    if 0.6 < masked < 0.95 and (shared := _coincide(unmasked)):
        return SHARED[shared]
    return _shares_problem(shares) or _random_problem(long) or _small_problem(calls, results) or _dealt_problem(long)


def _not_allowed(call: Call, got: Array) -> str | None:
    given = call.inputs
    changed = int(((got != given["ids"]) & ~given["selected"]).sum())
    if changed:
        return f"{changed} tokens that were not selected were changed: outside A(x) x̄ equals x"
    strange = ~np.isin(got, given["ordinary_ids"]) & (got != given["mask_id"]) & given["selected"]
    if strange.any():
        return f"a selected token became {got[strange][0]}, which is no ordinary token: draw only from `ordinary_ids`"
    return None


def _shares(results: Sequence[tuple[Call, Array]]) -> tuple[int, int, int]:
    """How many selected tokens became [MASK], another token, or look the same."""
    masked = other = same = 0
    for call, got in results:
        ids, selected = call.inputs["ids"][call.inputs["selected"]], got[call.inputs["selected"]]
        masked += int((selected == call.inputs["mask_id"]).sum())
        same += int((selected == ids).sum())
        other += int(((selected != ids) & (selected != call.inputs["mask_id"])).sum())
    return masked, other, same


def _shares_problem(shares: tuple[int, int, int]) -> str | None:
    total = sum(shares)
    by_chance = 0.1 / 30
    if not any(_off(n, total, p) for n, p in zip(shares, (0.8, 0.1 - by_chance, 0.1 + by_chance), strict=True)):
        return None
    masked, other, same = (count / total for count in shares)
    return (
        f"of the selected tokens {masked:.1%} became [MASK], {other:.1%} another token, {same:.1%} stayed: "
        "80, 10 and 10 % were asked for"
    )


def _random_problem(results: Sequence[tuple[Call, Array]]) -> str | None:
    first = last = trials = 0
    for call, got in results:
        ids, chosen, ordinary = (call.inputs[name] for name in ("ids", "selected", "ordinary_ids"))
        replaced = got[chosen & (got != ids) & (got != call.inputs["mask_id"])]
        counts = np.array([(replaced == one).sum() for one in ordinary])
        if counts.max() > binomial_bounds(int(chosen.sum()), 0.1 / 30, 1e-12)[1]:
            return "the same random token again and again: each replaced position needs its own draw"
        first, last = first + int(counts[0]), last + int(counts[-1])
        trials += int(chosen.sum())
    if min(first, last) < binomial_bounds(trials, 0.1 / 30 * 29 / 30, 1e-10)[0]:
        return "some ordinary ids are never drawn: each of them should be as likely as any other"
    return None


def _small_problem(calls: Sequence[Call], results: Sequence[Array]) -> str | None:
    """With two ordinary ids every second random token is the true one."""
    for call, got in zip(calls, results, strict=True):
        if len(call.inputs["ordinary_ids"]) == 2 and _off(int((got == call.inputs["ids"]).sum()), got.size, 0.15):
            same = (got == call.inputs["ids"]).mean()
            return (
                f"with two ordinary ids {same:.1%} of the tokens stayed, and 15 % should (10 % kept, 5 % by chance): a "
                "random token may be the true one"
            )
    return None


def _dealt_problem(results: Sequence[tuple[Call, Array]]) -> str | None:
    exact = [abs(_shares([one])[0] - 0.8 * one[0].inputs["selected"].sum()) < 1 for one in results]
    if all(exact):
        return (
            "exactly 80 % became [MASK] in every call: the fate of each token is drawn by itself, so the number varies"
        )
    return None


# 03.12


def verify_spans(calls: Sequence[Call]) -> str | None:
    """Numbers from 0, whole words, none too long, and each word ends a span with probability q."""
    ends: dict[str, list[float]] = {name: [0, 0, 0.0] for name in ("the first", "the last but one", "any")}
    single = True
    for call in calls:
        begins, q, longest = (call.inputs[name] for name in ("begins_word", "q", "longest"))
        got = _whole(call.got, begins.shape)
        if got is None:
            return _shape_problem(call, begins.shape, "an array of integers")
        steps = np.diff(got)
        if got[0] != 0 or not np.isin(steps, (0, 1)).all():
            return "the numbers should begin at 0 and grow by 1 where a span begins"
        if (steps.astype(bool) & ~begins[1:]).any():
            return "a span was cut inside a word: a piece that continues a word belongs to the span of that word"
        words = got[begins]  # the span of each word
        lengths = np.bincount(words)
        if lengths.max() > longest:
            return f"a span has {lengths.max()} words, and the longest allowed is {longest}"
        if q == 1 and lengths.max() > 1:
            return "with q = 1 every span ends after its first word"
        single &= lengths.max() == 1 or len(begins) < 100
        if q < 1 and longest > 1:
            _count_ends(words, q, longest, ends)
    if single:
        return "every span has one word: single words are no spans, neighbors should go together until the span ends"
    return next(filter(None, (_ends_problem(counted, name) for name, counted in ends.items())), None)


def _count_ends(words: Array, q: float, longest: int, ends: dict[str, list[float]]) -> None:
    """Count after how many words a span ended, of those after which it could; the last word tells nothing."""
    place = np.arange(len(words)) - np.searchsorted(words, words) + 1  # from 1, in its span
    ended = np.diff(words).astype(bool)
    place = place[:-1]
    for name, could in zip(ends, (place == 1, place == longest - 1, place < longest), strict=True):
        found, trials, expected = ends[name]
        ends[name] = [found + ended[could].sum(), trials + could.sum(), expected + q * could.sum()]


def _ends_problem(counted: list[float], where: str) -> str | None:
    found, trials, expected = counted
    if not trials or not _off(found, int(trials), expected / trials):
        return None
    return (
        f"of the words that could end a span ({where} of a span) {found / trials:.1%} did, and {expected / trials:.1%} "
        "were asked for (q)"
    )
