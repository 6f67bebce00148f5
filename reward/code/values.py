"""Plain values as JSON, both ways: all that passes between the process with the program and the one with the tests.

What the tests compare is rebuilt from these, so an object with an ``__eq__`` of its own never reaches them. Anything
else stays where it is and is known to the other side by a number. Runs in both sandboxes; imports nothing of ours.
Left out: arrays and data frames (an array travels as its list).
"""

from __future__ import annotations

import builtins
import math
from collections import deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from types import BuiltinFunctionType
from typing import Any

_SMALL = 1 << 53
_LISTS: dict[type, str] = {tuple: "tuple", set: "set", frozenset: "frozenset", deque: "deque"}
_TIMES: dict[type, str] = {datetime: "datetime", date: "date", time: "time"}
_BUILD: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": deque,
    "dict": dict,
    "complex": lambda parts: complex(*parts),
    "range": lambda bounds: range(*bounds),
    "fraction": lambda parts: Fraction(*parts),
    "timedelta": lambda parts: timedelta(*parts),
}
_READ: dict[str, Callable[[str], Any]] = {
    "int": lambda text: int(text, 16),
    "float": float,
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "builtin": lambda name: getattr(builtins, name),
}


def encode(value: Any, other: Callable[[Any], Any]) -> Any:
    """A value as JSON types; subclasses as what they are underneath, and what is not plain as ``other`` says."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        whole = int.__index__(value)
        return whole if -_SMALL <= whole <= _SMALL else {"int": hex(whole)}
    if isinstance(value, float):
        number = float.__float__(value)
        return number if math.isfinite(number) else {"float": repr(number)}
    if isinstance(value, list):
        return [encode(item, other) for item in list.__iter__(value)]
    if isinstance(value, dict):
        pairs = [[encode(key, other), encode(item, other)] for key, item in dict.items(value)]
        return {"dict": pairs}
    for kind, name in _LISTS.items():
        if isinstance(value, kind):
            return {name: [encode(item, other) for item in kind.__iter__(value)]}  # type: ignore[attr-defined]
    return _encode_rarer(value, other)


def _encode_rarer(value: Any, other: Callable[[Any], Any]) -> Any:
    if isinstance(value, bytes | bytearray):
        return {"bytes" if isinstance(value, bytes) else "bytearray": value.hex()}
    if isinstance(value, complex):
        return {"complex": [encode(value.real, other), encode(value.imag, other)]}
    if isinstance(value, range):
        return {"range": [encode(bound, other) for bound in (value.start, value.stop, value.step)]}
    if isinstance(value, Fraction):
        return {"fraction": [encode(value.numerator, other), encode(value.denominator, other)]}
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    if isinstance(value, timedelta):
        return {"timedelta": [value.days, value.seconds, value.microseconds]}
    for kind, known in _TIMES.items():
        if isinstance(value, kind):
            return {known: value.isoformat()}  # type: ignore[attr-defined]
    if isinstance(value, (type, BuiltinFunctionType)):
        name = str(value.__name__)
        if getattr(builtins, name, None) is value:
            return {"builtin": name}
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return encode(value.tolist(), other)
    return other(value)


def decode(coded: Any, other: Callable[[str, Any], Any]) -> Any:
    """The value that was encoded; what is not plain as ``other(kind, content)`` says.

    Raises:
        ValueError, TypeError: it is not of ``encode``'s making.
    """
    if isinstance(coded, list):
        return [decode(item, other) for item in coded]
    if not isinstance(coded, dict):
        return coded
    (kind, content), *more = coded.items()
    if more:
        raise ValueError("a coded value has one kind")
    if kind in _BUILD:
        return _BUILD[kind](decode(content, other))
    if kind in _READ:
        return _READ[kind](content)
    return other(kind, content)
