"""HumanEval+ and MBPP+: rows of EvalPlus as published, on the hub or in its own release files.

On the hub a row has its tests as a program (``test``). A release file has ``base_input`` and ``plus_input``, which
win where a row has both; the expected outputs are then what the reference solution returns, compared as EvalPlus 0.3.1
compares, its oracles of single tasks included. Left out: its time limits that grow with the reference's own time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlpost.eval.benchmark import Row
from rlpost.eval.columns import first, mbpp_any, text

_MEMORY_MIB = 4096
"""What EvalPlus allows a program."""
_TESTS = """
import copy, math
import numpy as np
from math import inf, nan

_reference = {{}}
exec({reference!r}, _reference)
_suites = {suites!r}

def _floats(value):
    return isinstance(value, float) or (
        isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, float) for item in value)
    )

def _right(given, out, expected, atol):
    {rule}

def check(candidate):
    for inputs in _suites:
        atol = {atol!r}
        for given in inputs:
            expected = _reference[{name!r}](*copy.deepcopy(given))
            out = candidate(*given)
            right = _right(given, out, expected, atol)
            atol = 1e-6 if atol == 0 and _floats(expected) else atol
            if not right and atol != 0:
                assert type(out) == type(expected), (given, out, expected)
                assert not isinstance(expected, (list, tuple)) or len(out) == len(expected), (given, out, expected)
                assert np.allclose(out, expected, rtol=1e-07, atol=atol), (given, out, expected)
            else:
                assert right, (given, out, expected)
"""
"""EvalPlus: equal, or where the task has a tolerance, or a result was of floats so far, of one type and close."""

_EQUAL = "return out == expected"
_SET = "return set(out) == set(expected)"
_NOT_NONE = "return out == (expected is not None) if isinstance(out, bool) else (expected is None) == (out is None)"
_HUMANEVAL_RULES = {
    "find_zero": "assert abs(sum(c * math.pow(out, i) for i, c in enumerate(given[0]))) <= atol; return True",
}
_MBPP_RULES = {
    "are_equivalent": "return True",
    "sum_div": "return out == expected or out == 0",
    "surface_Area": (
        "base, height = given; slant = math.sqrt((base / 2) ** 2 + height**2); "
        "return out == expected or abs(out - round(base**2 + 2 * base * slant)) <= atol"
    ),
    "digit_distance_nums": (
        "one, other = map(str, given); width = max(len(one), len(other)); "
        "return out == expected or out == sum(abs(int(a) - int(b)) "
        "for a, b in zip(one.zfill(width), other.zfill(width)))"
    ),
    **dict.fromkeys(("check_str", "text_match_three", "text_starta_endb"), _NOT_NONE),
    **dict.fromkeys(
        (
            "similar_elements",
            "find_char_long",
            "common_in_nested_lists",
            "extract_singly",
            "larg_nnum",
            "intersection_array",
            "find_dissimilar",
            "Diff",
        ),
        _SET,
    ),
}


def _tuples(given: list[Any]) -> list[Any]:
    return [tuple(item) for item in given]


def _lists_of_tuples(given: list[Any]) -> list[Any]:
    return [_tuples(item) for item in given]


def _deep(value: Any) -> Any:
    return tuple(map(_deep, value)) if isinstance(value, list) else value


def _first(convert: Callable[[Any], Any]) -> Callable[[list[Any]], list[Any]]:
    return lambda given: [convert(given[0]), *given[1:]]


_CONVERSIONS: list[tuple[str, Callable[[list[Any]], Any]]] = [
    ("2 116 132 143 222 261 273 394 399 421 424 429 470 560 579 596 616 630 726 740 744 809", _tuples),
    ("63 64 70 94 120 237 272 299 400 409 417 438 473 614 780", _lists_of_tuples),
    ("75 413 444 753", _first(_tuples)),
    ("106 750", lambda given: [given[0], tuple(given[1])]),
    ("115", _first(lambda sets: [set(item) if isinstance(item, list) and item else {} for item in sets])),
    ("124", lambda given: (float(given[0]), complex(given[1]))),
    ("250 307 405 446 617 720 763 808", _first(tuple)),
    ("259 401 445", lambda given: _tuples(_lists_of_tuples(given))),
    ("278", lambda given: [tuple(tuple(item) if isinstance(item, list) else item for item in given[0])]),
    ("722", _first(lambda marks: {name: tuple(mark) for name, mark in marks.items()})),
    ("252", lambda given: [complex(given[0])]),
    ("580 615 791", _deep),
]
_CONVERT = {int(number): convert for numbers, convert in _CONVERSIONS for number in numbers.split()}
"""MBPP's arguments of types that JSON has not, by task: 52 tasks."""


def humaneval_plus(row: Row) -> Row:
    """``prompt``, ``entry_point``, and EvalPlus' inputs or ``test``."""
    kept = {name: text(row, name) for name in ("prompt", "entry_point")}
    solution = str(row.get("canonical_solution") or "")
    rule = _HUMANEVAL_RULES.get(kept["entry_point"], _EQUAL)
    tests = _tests(row, kept["prompt"] + solution, rule) if row.get("base_input") else text(row, "test")
    head = kept["prompt"].rstrip()
    return {**kept, "head": head, "test": tests, "solution": solution, "memory_mib": _MEMORY_MIB}


def mbpp_plus(row: Row) -> Row:
    """The hub's rows have ``prompt``, ``code``, ``test_list`` and ``test``; release files EvalPlus' inputs."""
    if "test_list" in row:
        return {**mbpp_any(row), "test_list": [text(row, "test")], "memory_mib": _MEMORY_MIB}
    prompt, solution = text(row, "prompt"), text(row, "canonical_solution")
    words = prompt.strip().strip('"').strip()
    shown = next((line for line in words.splitlines() if line.startswith("assert")), "")
    name = text(row, "entry_point")
    number = str(row.get("task_id", "")).rpartition("/")[2]
    convert = _CONVERT.get(int(number)) if number.isdigit() else None
    return {
        "text": words.partition("assert")[0].strip(),
        "tests": shown,
        "first_test": shown,
        "entry_point": name,
        "test": _tests(row, solution, _MBPP_RULES.get(name, _EQUAL), convert),
        "code": solution,
        "solution": solution,
        "memory_mib": _MEMORY_MIB,
    }


def _tests(row: Row, reference: str, rule: str, convert: Callable[[list[Any]], Any] | None = None) -> str:
    suites: list[Any] = [first(row, "base_input"), row.get("plus_input") or []]
    if not all(isinstance(given, list) for inputs in suites for given in inputs):
        raise ValueError("the columns 'base_input' and 'plus_input' are not lists of argument lists")
    if convert is not None:
        suites = [[convert(given) for given in inputs] for inputs in suites]
    return _TESTS.format(
        reference=reference,
        suites=suites,
        name=text(row, "entry_point"),
        atol=float(row.get("atol") or 0.0),
        rule=rule,
    )
