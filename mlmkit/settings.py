"""Values of typed fields: read from the command line, checked, and named in messages."""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

from mlmkit.errors import UserError


def nearest(name: str, names: Iterable[str]) -> str:
    """Suggest the known name that is most like a mistyped one; empty if none is."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.4)
    return f"; did you mean {close[0]!r}?" if close else ""


def _options(kind: Any) -> tuple[Any, ...]:
    """The types that a field allows: those of a union, or the one there is."""
    return get_args(kind) if get_origin(kind) in (types.UnionType, typing.Union) else (kind,)


def parse(text: str, kind: Any, key: str) -> Any:
    """Read a value of the command line as the type of its field.

    Raises:
        UserError: it does not fit.
    """
    options = _options(kind)
    if type(None) in options and text.lower() in ("none", "null", "off"):
        return None
    for option in options:
        if option is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if option in (int, float):
            try:
                return option(text)
            except ValueError:
                continue
        if option is str or get_origin(option) is Literal:
            return text
    raise UserError(f"{key} expects {type_name(kind)}, got {text!r}")


def check_type(value: Any, kind: Any, key: str) -> None:
    """Refuse a value that is not of the type of its field.

    Raises:
        UserError: naming the field, the type and the value.
    """
    for option in _options(kind):
        if get_origin(option) is Literal:
            fits = value in get_args(option)
        elif option is float:
            fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        else:
            fits = isinstance(value, option) and (option is bool or not isinstance(value, bool))
        if fits:
            return
    raise UserError(f"{key} expects {type_name(kind)}, got {value!r}")


def type_name(kind: Any) -> str:
    """Say a type in words."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    if len(_options(kind)) > 1:
        return " or ".join(type_name(option) for option in _options(kind))
    return {type(None): "none", bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
