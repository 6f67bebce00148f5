"""The program's side: it runs the program, and then does with its objects what the tests' side asks for.

It shares its process with the program, so nothing it says is believed: it can only hand over values, and wrong ones
fail the tests. Runs in a sandbox session; imports nothing of ours but ``values``. Left out: the tests.
"""

from __future__ import annotations

import itertools
import json
import linecache
import operator
import sys
import types
from collections.abc import Callable
from typing import Any

from rlpost.reward.code import values

_FILE = "<program>"
_objects: list[Any] = []  # what stayed here; its place is its number on the other side
_program = types.ModuleType("solution")


def load(text: str) -> None:
    """Run the program; its ``if __name__ == "__main__"`` part does not, as it is imported, not started."""
    sys.modules["solution"] = _program
    linecache.cache[_FILE] = (len(text), None, text.splitlines(keepends=True), _FILE)
    try:
        exec(compile(text, _FILE, "exec", dont_inherit=True), _program.__dict__)
    except SystemExit as error:
        raise RuntimeError("the program left before the tests") from error


def answer(request: str, reply: Callable[..., Any]) -> None:
    """Do one thing that the tests ask for and hand the result over."""
    asked = json.loads(request)
    try:
        arguments = [values.decode(coded, _mine) for coded in asked["arguments"]]
        keywords = {name: values.decode(coded, _mine) for name, coded in asked["keywords"].items()}
        before = [values.encode(value, _stay) for value in arguments]
        value = values.encode(_DO[asked["do"]](*arguments, **keywords), _stay)
        after = [values.encode(value, _stay) for value in arguments]
    except Exception as error:
        reply("reply", raised=[type(error).__name__, str(error)[:500]])
        return
    changed = {place: now for place, (then, now) in enumerate(zip(before, after, strict=True)) if now != then}
    reply("reply", value=value, changed=changed)


def _stay(value: Any) -> dict[str, Any]:
    if isinstance(value, types.ModuleType):
        return {"module": value.__name__}
    _objects.append(value)
    return {"remote": [len(_objects) - 1, type(value).__name__]}


def _mine(kind: str, content: Any) -> Any:
    if kind != "remote":
        raise ValueError(f"unknown kind {kind}")
    return _objects[content]


def _look_up(name: str) -> Any:
    if name not in _program.__dict__:
        raise NameError(f"name '{name}' is not defined")
    return _program.__dict__[name]


def _take(iterator: Any, count: int) -> list[Any]:
    return list(itertools.islice(iterator, count))


_DO: dict[str, Callable[..., Any]] = {
    "name": _look_up,
    "call": lambda function, *arguments, **keywords: function(*arguments, **keywords),
    "get": getattr,
    "set": setattr,
    "item": operator.getitem,
    "set item": operator.setitem,
    "iterate": iter,
    "take": _take,
    "length": len,
    "truth": bool,
    "text": str,
}
