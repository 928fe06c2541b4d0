"""Say whether two values are the same, and if not, where they first differ.

Both sides are plain data (`plain.decode`): numbers, strings, lists, dictionaries, numpy arrays. What is free stays
free: a list is as good as a tuple, a nested list as good as an array, `int32` as good as `int64`, 0 and 1 as good as
False and True. What is not free: the number of axes, their lengths, the values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlmkit.grading.plain import Other, Rng, Torch

WIDTH = 600
"""Most characters of a value that are shown."""


@dataclass(frozen=True)
class Tolerance:
    """|got − expected| ≤ `absolute` + `relative`·|expected| counts as equal for floats; integers must be equal."""

    relative: float = 1e-4
    absolute: float = 1e-6


def difference(expected: Any, got: Any, tolerance: Tolerance, where: str = "the result") -> str | None:
    """Describe the first difference in one sentence, or give None when there is none.

    >>> difference([1, 2], np.array([1, 3]), Tolerance())
    'the result[1] should be 2 and is 3'
    >>> difference(np.zeros((2, 3)), np.zeros((2, 1)), Tolerance())
    'the result should have the shape (2, 3) and has (2, 1)'
    """
    if isinstance(got, Other):
        return f"{where} should be {_kind(expected)} and is of type {got.type}"
    if isinstance(expected, np.ndarray) and expected.ndim:
        return _of_arrays(expected, got, tolerance, where)
    if isinstance(expected, Mapping):
        return _of_mappings(expected, got, tolerance, where)
    if isinstance(expected, Set):
        return _of_sets(expected, got, where)
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        return _of_sequences(expected, got, tolerance, where)
    expected, got = _scalar(expected), _scalar(got)
    if _same_scalar(expected, got, tolerance):
        return None
    return f"{where} should be {shown(expected)} and is {shown(got)}"


def _scalar(value: Any) -> Any:
    """The number in an array without axes."""
    return value.item() if isinstance(value, np.ndarray | np.generic) and np.ndim(value) == 0 else value


def _same_scalar(expected: Any, got: Any, tolerance: Tolerance) -> bool:
    if isinstance(expected, str) or expected is None:
        return isinstance(got, type(expected)) and bool(got == expected)
    if not isinstance(got, bool | int | float):
        return False
    if isinstance(expected, float):
        if math.isnan(expected) or math.isnan(got):
            return math.isnan(expected) and math.isnan(got)
        if math.isinf(expected) or math.isinf(got):
            return expected == got
        return abs(got - expected) <= tolerance.absolute + tolerance.relative * abs(expected)
    return bool(got == expected)


def _of_arrays(expected: np.ndarray[Any, Any], got: Any, tolerance: Tolerance, where: str) -> str | None:
    try:
        array = np.asarray(got)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        return f"{where} should be {_kind(expected)} and is {shown(got)}"
    if array.shape != expected.shape:
        return f"{where} should have the shape {expected.shape} and has {array.shape}"
    if expected.dtype.kind == "f":
        close = np.isclose(array, expected, rtol=tolerance.relative, atol=tolerance.absolute, equal_nan=True)
    else:
        close = array == expected
    if close.all():
        return None
    index = tuple(int(i) for i in np.argwhere(~close)[0])
    place = ", ".join(map(str, index))
    many = f" ({int((~close).sum())} of {close.size} entries differ)" if close.size > 1 else ""
    return f"{where}[{place}] should be {shown(expected[index])} and is {shown(array[index])}{many}"


def _of_sequences(expected: Sequence[Any], got: Any, tolerance: Tolerance, where: str) -> str | None:
    if isinstance(got, np.ndarray) and got.ndim:
        got = list(got)
    if not isinstance(got, list | tuple):
        return f"{where} should be {_kind(expected)} and is {shown(got)}"
    if len(got) != len(expected):
        return f"{where} should have {len(expected)} items and has {len(got)}"
    for index, (one, other) in enumerate(zip(expected, got, strict=True)):
        if found := difference(one, other, tolerance, f"{where}[{index}]"):
            return found
    return None


def _of_mappings(expected: Mapping[Any, Any], got: Any, tolerance: Tolerance, where: str) -> str | None:
    if not isinstance(got, Mapping):
        return f"{where} should be {_kind(expected)} and is {shown(got)}"
    for key in expected:
        if key not in got:
            return f"{where} should have the key {key!r}"
    for key in got:
        if key not in expected:
            return f"{where} should not have the key {key!r}"
    for key, value in expected.items():
        if found := difference(value, got[key], tolerance, f"{where}[{key!r}]"):
            return found
    return None


def _of_sets(expected: Set[Any], got: Any, where: str) -> str | None:
    if not isinstance(got, Set | list | tuple | np.ndarray):
        return f"{where} should be {_kind(expected)} and is {shown(got)}"
    items = {_scalar(item) if not isinstance(item, list | dict) else repr(item) for item in got}
    if items == set(expected):
        return None
    lacking, extra = sorted(expected - items, key=repr), sorted(items - expected, key=repr)
    return f"{where} " + (f"lacks {lacking[0]!r}" if lacking else f"should not contain {extra[0]!r}")


def _kind(value: Any) -> str:
    """What a value is, in words.

    >>> _kind(np.zeros((2, 3)))
    'an array of shape (2, 3)'
    """
    if isinstance(value, np.ndarray) and value.ndim:
        return f"an array of shape {value.shape}"
    names = {bool: "True or False", int: "an integer", float: "a number", str: "a string", dict: "a dictionary"}
    names |= {list: "a list", tuple: "a tuple", set: "a set", type(None): "None"}
    return names.get(type(_scalar(value)), type(value).__name__)


def shown(value: Any) -> str:
    """Print a value for a learner: short, numbers with few digits, long arrays cut.

    >>> shown({"ids": np.arange(3), "rate": 0.15})
    '{ids: [0 1 2], rate: 0.15}'
    """
    return _shown(value)[:WIDTH]


def _shown(value: Any) -> str:
    value = _scalar(value)
    if isinstance(value, Rng):
        return f"default_rng({value.seed})"
    if isinstance(value, Other):
        return f"<{value.type}>"
    if isinstance(value, Torch):
        value = value.values
    if isinstance(value, np.ndarray):
        text = np.array2string(value, precision=4, suppress_small=True, threshold=60, edgeitems=4, max_line_width=110)
        return "\n" + text if "\n" in text else text
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        inside = ", ".join(_shown(item) for item in value)
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    return repr(value)
