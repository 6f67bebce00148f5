"""Countdown: reach a target from given numbers with + - * / and brackets, each number used exactly once.

1.0 for an expression in the last ``<answer>`` that does; 0.1 for an answer that does not, cannot be read or breaks the
rules; 0 for no answer. The part ``exact`` counts only the first: a policy that earns 0.1 everywhere has learned
nothing. Expressions are read from their syntax tree and never evaluated as code; arithmetic is exact (fractions).
Left out: variants that allow numbers to be left over.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from numbers import Integral
from typing import Any

from rlpost.reward.answers import column, last_answer
from rlpost.reward.score import RewardError, Score

FORMAT_REWARD = 0.1
_LONGEST = 300  # characters; the longest honest expression of a dozen numbers is shorter
_ALLOWED = frozenset("0123456789+-*/() \t\n")
_OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}


def score(completion: str, numbers: Sequence[int], target: int) -> Score:
    """Judge one completion.

    ``parts``: ``exact`` (1 where solved) and ``answered`` (1 where there is an ``<answer>``).

    Raises:
        RewardError: ``numbers`` or ``target`` are not whole numbers.
    """
    if not all(_is_whole(number) and number >= 0 for number in numbers) or not _is_whole(target):
        raise RewardError(f"countdown needs whole numbers, not numbers={numbers!r}, target={target!r}")
    answer = last_answer(completion)
    exact = answer is not None and _solves(answer, numbers, target)
    reward = 1.0 if exact else FORMAT_REWARD if answer is not None else 0.0
    parts = {"exact": float(exact), "answered": float(answer is not None)}
    return Score(reward, parts, success=exact, answer=answer or "")


def reward(completion: str, task: Mapping[str, Any]) -> Score:
    """As ``score``, with the columns ``numbers`` (or ``nums``) and ``target``."""
    return score(completion, list(column(task, "numbers", "nums")), column(task, "target"))


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def evaluate(expression: str) -> tuple[Fraction, list[int]]:
    """The value of an expression, and the numbers in it.

    Raises:
        ValueError: it is too long, or not arithmetic of whole numbers with + - * / and brackets.
    """
    if len(expression) > _LONGEST or not set(expression) <= _ALLOWED:
        raise ValueError("not arithmetic")
    used: list[int] = []
    try:
        tree = ast.parse(f"({expression})", mode="eval")  # brackets: it may run over several lines
        return _value(tree.body, used), used
    except (SyntaxError, ZeroDivisionError, RecursionError, MemoryError) as error:
        raise ValueError(f"not arithmetic: {error}") from error


def _solves(text: str, numbers: Sequence[int], target: int) -> bool:
    try:
        value, used = evaluate(text)
    except ValueError:
        return False
    return value == target and sorted(used) == sorted(numbers)


def _value(node: ast.expr, used: list[int]) -> Fraction:
    """The value of an expression; the numbers in it join ``used``.

    Raises:
        ValueError: it holds anything but whole numbers and + - * /.
    """
    if isinstance(node, ast.Constant) and type(node.value) is int:
        used.append(node.value)
        return Fraction(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand, used)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_value(node.left, used), _value(node.right, used))
    raise ValueError(f"not arithmetic: {type(node).__name__}")
