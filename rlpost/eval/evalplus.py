"""HumanEval+ and MBPP+: rows of EvalPlus as published, on the hub or in its own release files.

On the hub a row has its tests as a program (``test``). A release file has inputs only (``base_input``,
``plus_input``); the expected outputs are then what the reference solution returns, compared as EvalPlus compares.
Left out: EvalPlus' time limits that grow with the reference's own time (the sandbox has one limit), and its oracles of
single tasks but the two below.
"""

from __future__ import annotations

from typing import Any

from rlpost.eval.benchmark import Row
from rlpost.eval.columns import first, mbpp_any, text

_TESTS = """
import copy, math
from math import inf, nan

def _close(out, expected, atol):
    if isinstance(expected, float) or isinstance(out, float):
        return isinstance(out, (int, float)) and math.isclose(out, expected, rel_tol=1e-7, abs_tol=atol or 1e-6)
    if isinstance(expected, (list, tuple)) and type(out) is type(expected) and len(out) == len(expected):
        return all(_close(o, e, atol) for o, e in zip(out, expected))
    return out == expected

_reference = {{}}
exec({reference!r}, _reference)
def check(candidate):
    for given in {inputs!r}:
        expected = _reference[{name!r}](*copy.deepcopy(given))
        out = candidate(*copy.deepcopy(given))
        assert out == expected or {rule}, (given, out, expected)
"""
"""EvalPlus: equal, or for floats (also inside lists) close within ``atol``, or 1e-6 where it is 0."""

_RULES = {
    "find_zero": "abs(sum(c * out**i for i, c in enumerate(given[0]))) <= 1e-4",  # any root will do
    "similar_elements": "set(out) == set(expected)",  # the order is free
}


def humaneval_plus(row: Row) -> Row:
    """``prompt``, ``entry_point``, and ``test`` or EvalPlus' inputs."""
    kept = {name: text(row, name) for name in ("prompt", "entry_point")}
    solution = str(row.get("canonical_solution") or "")
    tests = _tests(row, kept["prompt"] + solution)
    return {**kept, "head": kept["prompt"].rstrip(), "test": tests, "solution": solution}


def mbpp_plus(row: Row) -> Row:
    """The hub's rows have ``prompt``, ``code``, ``test_list`` and ``test``; release files EvalPlus' inputs."""
    if "test_list" in row:
        found = mbpp_any(row)
        return {**found, "test_list": [text(row, "test")]}
    prompt, solution = text(row, "prompt"), text(row, "canonical_solution")
    words = prompt.strip().strip('"').strip()
    tests = next((line for line in words.splitlines() if line.startswith("assert")), "")
    program = f"{_tests(row, solution)}\ncheck({text(row, 'entry_point')})"
    return {
        "text": words.partition("assert")[0].strip(),
        "tests": tests,
        "first_test": tests,
        "test_list": [program],
        "code": solution,
        "solution": solution,
    }


def _tests(row: Row, reference: str) -> str:
    if row.get("test"):
        return text(row, "test")
    inputs: Any = [*first(row, "base_input"), *(row.get("plus_input") or [])]
    if not all(isinstance(given, list) for given in inputs):
        raise ValueError("the columns 'base_input' and 'plus_input' are not lists of argument lists")
    name = text(row, "entry_point")
    atol = float(row.get("atol") or 0.0)
    rule = _RULES.get(name, f"_close(out, expected, {atol!r})")
    return _TESTS.format(reference=reference, name=name, inputs=inputs, rule=rule)
