"""Values as plain data: what may cross the wall between the judge and a submission.

Only the standard library and numpy are imported here, and nothing of mlmkit, since the same file is loaded inside the
sandbox, where mlmkit does not exist. JSON carries the data; nothing is ever unpickled. Arrays of any framework come
out as numpy arrays, so the judge never touches an object that a submission made.
"""

from __future__ import annotations

import base64
import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_BYTES = 8_000_000
"""Longest message that is read from a submission."""

MAX_ITEMS = 1_000_000
"""Most commas in a message, and so about the most items that have to be read one by one."""

MAX_DEPTH = 40
"""Deepest nesting of lists and dictionaries that is read."""

MAX_EQUAL_HASHES = 64
"""Most elements of a set or dictionary that may share one hash value."""

DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")


class PlainError(ValueError):
    """A value that is no plain data, or a message that is broken."""


@dataclass(frozen=True)
class Rng:
    """Stands for `numpy.random.default_rng(seed)` among the inputs: each side makes its own."""

    seed: int


@dataclass(frozen=True)
class Torch:
    """Stands for `torch.tensor(values)` among the inputs, so that the judge need not import torch."""

    values: np.ndarray[Any, Any]


@dataclass(frozen=True)
class Other:
    """Stands for a returned value that is no plain data: a generator, a module, an object of a class."""

    type: str


def encode(value: Any, depth: int = 0) -> Any:
    """Write a value as JSON types; what is no data becomes `Other`.

    Args:
        value: None, bool, int, float, str, list, tuple, set, dict, numpy or torch arrays and scalars;
            `Rng`, `Torch`.

    Raises:
        PlainError: it is nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise PlainError(f"nested more than {MAX_DEPTH} deep")
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return value if abs(value) < 2**63 or value != value else float(value)
    if isinstance(value, list):
        return [encode(item, depth + 1) for item in value]
    if isinstance(value, tuple):
        return {"$": "tuple", "items": [encode(item, depth + 1) for item in value]}
    if isinstance(value, set | frozenset):
        return {"$": "set", "items": [encode(item, depth + 1) for item in sorted(value, key=repr)]}
    if isinstance(value, Mapping):
        return {"$": "dict", "items": [[encode(k, depth + 1), encode(v, depth + 1)] for k, v in value.items()]}
    if isinstance(value, Rng):
        return {"$": "rng", "seed": value.seed}
    if isinstance(value, Torch):
        return {**_array(value.values), "$": "torch"}
    if isinstance(value, np.ndarray | np.generic):
        return _array(np.asarray(value))
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
        tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        return {**_array(tensor.numpy()), "$": "torch"}
    return {"$": "other", "type": type(value).__name__[:60]}


def _array(array: np.ndarray[Any, Any]) -> Any:
    if array.dtype.name not in DTYPES:
        return {"$": "other", "type": f"array of {array.dtype.name}"[:60]}
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    return {"$": "array", "dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def decode(data: Any, live: bool = False, depth: int = 0) -> Any:
    """Read what `encode` wrote.

    Args:
        data: from JSON.
        live: make torch tensors and random generators of `Torch` and `Rng`, as a submission receives them; without it
            (on the judge's side) tensors come out as numpy arrays, and `Rng` as it is.

    Raises:
        PlainError: the data has another form than `encode` gives it.
    """
    if depth > MAX_DEPTH:
        raise PlainError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(data, list):
        return [decode(item, live, depth + 1) for item in data]
    if not isinstance(data, dict):
        return _scalar(data)
    try:
        return _tagged(data, live, depth + 1)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise PlainError(f"broken data: {str(error)[:100]}") from None


def _scalar(data: Any) -> Any:
    """Refuse what `encode` never writes and what a judge would stumble over: huge integers, broken text."""
    if isinstance(data, int) and abs(data) >= 2**63:
        raise PlainError("an integer of more than 64 bits")
    if isinstance(data, str) and not data.isascii() and any("\ud800" <= sign <= "\udfff" for sign in data):
        raise PlainError("text with half a character")
    return data


def _distinct(keys: list[Any]) -> list[Any]:
    """Refuse keys that were made to have one hash value, with which a set would take hours to build."""
    if len(keys) > MAX_EQUAL_HASHES and max(Counter(map(hash, keys)).values()) > MAX_EQUAL_HASHES:
        raise PlainError("keys with equal hash values")
    return keys


def _tagged(data: dict[str, Any], live: bool, depth: int) -> Any:
    kind = data["$"]
    if kind in ("tuple", "set"):
        items = [decode(item, live, depth) for item in data["items"]]
        return tuple(items) if kind == "tuple" else set(_distinct(items))
    if kind == "dict":
        keys = _distinct([decode(key, live, depth) for key, _ in data["items"]])
        return dict(zip(keys, [decode(value, live, depth) for _, value in data["items"]], strict=True))
    if kind in ("array", "torch"):
        if data["dtype"] not in DTYPES:
            raise PlainError(f"an array of {str(data['dtype'])[:20]}")
        flat = np.frombuffer(base64.b64decode(data["data"], validate=True), dtype=data["dtype"])
        flat = flat.view(np.uint8) != 0 if data["dtype"] == "bool" else flat
        array = flat.reshape([int(length) for length in data["shape"]]).copy()
        if kind == "torch" and live:
            import torch

            return torch.from_numpy(array)
        return array
    if kind == "rng":
        return np.random.default_rng(int(data["seed"])) if live else Rng(int(data["seed"]))
    if kind == "other":
        return Other(str(data["type"])[:60])
    raise PlainError(f"unknown kind {str(kind)[:20]}")


def dumps(value: Any) -> bytes:
    """Encode a value as one line of JSON."""
    return json.dumps(encode(value), separators=(",", ":")).encode() + b"\n"


def loads(message: bytes, live: bool = False) -> Any:
    """Decode one line of JSON.

    Raises:
        PlainError: it is too long, no JSON, or not of the form that `dumps` writes.
    """
    if len(message) > MAX_BYTES:
        raise PlainError(f"more than {MAX_BYTES:,} bytes")
    if message.count(b",") > MAX_ITEMS:
        raise PlainError(f"more than {MAX_ITEMS:,} items")
    try:
        return decode(json.loads(message), live)
    except (ValueError, RecursionError) as error:
        raise PlainError(str(error)[:200]) from None
