r"""When two readings are the same answer: exactly for integers, fractions and expressions, within 1e-4 of a decimal.

- A reference with a decimal point or in E-notation: relative difference below 1e-4 of the smaller of the two.
- An exact reference that no finite decimal equals (1/3, a root, pi): a decimal within 1e-8.
- All else exactly: rational numbers as such, others by their values to 50 digits at random points.
- Lists and sets in any order, pairs and matrices in order, brackets alike, units alike where both have one.

Left out: reading (``values``).
"""

from __future__ import annotations

import random
from typing import Any

import sympy

from rlpost.reward.math.units import same_unit
from rlpost.reward.math.values import (
    Based,
    Matrix,
    NumberSet,
    Quantity,
    Ratio,
    Relation,
    Sequence,
    Value,
    Words,
    as_numbers,
    is_numeric,
    words_key,
)

TOLERANCE = sympy.Rational(1, 10**4)
DIGITS_TOLERANCE = sympy.Rational(1, 10**8)
_PRECISION = 60
_EQUAL = sympy.Float(10, 20) ** -45
_POINTS = 3
_MOST_TERMS = 500
_CALCULUS = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit)
_KIND_OF_LIST = ("list", "set", "pm")


def same(reference: Value, answer: Value) -> bool:
    """Whether the answer is the reference."""
    if isinstance(reference, Relation) or isinstance(answer, Relation):
        return _same_relation(reference, answer)
    if isinstance(reference, Quantity) and isinstance(answer, Quantity):
        return _same_quantity(reference, answer)
    if isinstance(reference, Ratio) or isinstance(answer, Ratio):
        return _same_ratio(reference, answer)
    if isinstance(reference, NumberSet) or isinstance(answer, NumberSet):
        return _same_set(reference, answer)
    if isinstance(reference, Sequence) and isinstance(answer, Sequence):
        return _same_sequence(reference, answer)
    if isinstance(reference, Matrix) and isinstance(answer, Matrix):
        return [len(row) for row in reference.rows] == [len(row) for row in answer.rows] and all(
            same(a, b)
            for first, second in zip(reference.rows, answer.rows, strict=True)
            for a, b in zip(first, second, strict=True)
        )
    if isinstance(reference, Based) and isinstance(answer, Based):
        return reference == answer
    if isinstance(reference, Words) and isinstance(answer, Words):
        return words_key(reference.text) == words_key(answer.text) != ""
    return _single(reference, answer)


def _single(reference: Value, answer: Value) -> bool:
    """A set of one is that one."""
    if isinstance(reference, Sequence) and reference.kind == "set" and len(reference.items) == 1:
        return same(reference.items[0], answer)
    if isinstance(answer, Sequence) and answer.kind == "set" and len(answer.items) == 1:
        return same(reference, answer.items[0])
    return False


def _same_relation(reference: Value, answer: Value) -> bool:
    if isinstance(reference, Relation) and isinstance(answer, Relation):
        if reference.sign == answer.sign == "=" and reference.name and reference.name == answer.name:
            return same(reference.right, answer.right)
        return _same_equation(reference, answer)
    if isinstance(reference, Relation):
        return bool(reference.name) and same(reference.right, answer)
    return isinstance(answer, Relation) and bool(answer.name) and same(reference, answer.right)


def _same_equation(first: Relation, second: Relation) -> bool:
    """Two equations (or inequalities) whose difference of sides is the same but for a factor (above 0)."""
    sides = (first.left, first.right, second.left, second.right)
    if not all(isinstance(side, Quantity) for side in sides):
        return first.sign == second.sign and same(first.left, second.left) and same(first.right, second.right)
    a, b, c, d = (side.value for side in sides if isinstance(side, Quantity))
    turned = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
    sign = second.sign
    over, under = c - d, a - b
    if first.sign != sign:
        if turned.get(sign) != first.sign:
            return False
        over = -over
    if under == 0 or over == 0:
        return False
    ratios = [_value(over / under, point) for point in _points(over, under)]
    first_ratio = ratios[0]
    if first_ratio is None or any(ratio is None or not _close(ratio, first_ratio) for ratio in ratios):
        return False
    return first.sign in ("=", "!=") or bool(sympy.re(first_ratio) > 0)


def _same_quantity(reference: Quantity, answer: Quantity) -> bool:
    if not same_unit(reference.unit, answer.unit) or (
        reference.percent != answer.percent and (reference.unit or answer.unit)
    ):
        return False
    if reference.letter and answer.unit != reference.unit:  # it may be a variable
        return not answer.unit and same_number(
            reference.value * sympy.Symbol(reference.unit), answer.value, False, False
        )
    if answer.letter and not reference.value.is_number:
        return same_number(reference.value, answer.value * sympy.Symbol(answer.unit), False, False)
    factors = {(True, False): (1, 100), (False, True): (1, sympy.Rational(1, 100))}.get(
        (reference.percent, answer.percent), (1,)
    )
    return any(
        same_number(reference.value, answer.value * factor, reference.decimal, answer.decimal) for factor in factors
    )


def same_number(reference: Any, answer: Any, reference_decimal: bool, answer_decimal: bool) -> bool:
    """Whether two SymPy expressions are equal under the rules above."""
    if reference == answer:
        return True
    if reference.is_Rational and answer.is_Rational:
        if reference_decimal:
            return _within(reference, answer, TOLERANCE)
        endless = sympy.factorint(reference.q, limit=10).keys() - {2, 5}
        return bool(endless) and answer_decimal and _within(reference, answer, DIGITS_TOLERANCE)
    if reference.free_symbols != answer.free_symbols and not (reference.free_symbols and answer.free_symbols):
        return False
    if (
        reference.is_number
        and answer.is_number
        and (reference_decimal or (answer_decimal and not reference.is_Rational))
    ):
        limit = TOLERANCE if reference_decimal else DIGITS_TOLERANCE
        first, second = _value(reference, {}), _value(answer, {})
        return first is not None and second is not None and _within(first, second, limit)
    return _identical(reference, answer, TOLERANCE if reference_decimal else None)


def _within(first: Any, second: Any, limit: Any) -> bool:
    return bool(abs(first - second) < limit * min(abs(first), abs(second)))


def _identical(first: Any, second: Any, limit: Any) -> bool:
    """Equal at all points tried; for a random point chance would have to be 1e-45 off."""
    if first.has(sympy.oo, -sympy.oo) or second.has(sympy.oo, -sympy.oo):
        return False
    for point in _points(first, second):
        a, b = _value(first, point), _value(second, point)
        if a is None or b is None or not (_close(a, b) or (limit is not None and _within(a, b, limit))):
            return False
    return True


def _points(*expressions: Any) -> list[dict[Any, Any]]:
    """Values for the unknowns, the same ones for the same names: positive, and some below 0 where signs matter."""
    symbols: set[Any] = set()
    for expression in expressions:
        symbols |= expression.free_symbols | expression.atoms(sympy.core.function.AppliedUndef)
    names = sorted(symbols, key=str)
    if not names:
        return [{}]
    draw = random.Random(20)
    signed = any(expression.has(sympy.Abs, sympy.sign, sympy.floor, sympy.ceiling) for expression in expressions)
    points = []
    for number in range(_POINTS + signed):
        sign = -1 if signed and number % 2 else 1
        points.append({name: sympy.Float(sign * draw.randrange(10**6, 3 * 10**6), 80) / (10**6 + 3) for name in names})
    whole = any(
        expression.has(sympy.factorial, sympy.binomial, sympy.floor, sympy.ceiling) for expression in expressions
    )
    if whole:  # formulas about counts hold for counts
        points += [{name: sympy.Integer(draw.randrange(3, 40)) for name in names} for _ in range(4)]
    return points


def _value(expression: Any, point: dict[Any, Any]) -> Any:
    """Its value to 60 digits; None where there is none."""
    try:
        if expression.has(*_CALCULUS):
            if any(_is_long(one) for one in expression.atoms(sympy.Sum, sympy.Product)):
                return None
            expression = expression.doit()
        found = sympy.N(expression.xreplace(point) if point else expression, _PRECISION)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError, AttributeError, NotImplementedError):
        return None
    return found if found.is_number and found.is_finite else None


def _is_long(total: Any) -> bool:
    """Whether a sum or product has too many terms to be worked out one by one."""
    return any(not (high - low < _MOST_TERMS) for _, low, high in total.limits if (high - low).is_number)


def _close(first: Any, second: Any) -> bool:
    size = abs(first) + abs(second)
    return bool(abs(first - second) <= _EQUAL * size) if size else True


def _same_ratio(reference: Value, answer: Value) -> bool:
    if isinstance(reference, Ratio) and isinstance(answer, Ratio):
        if reference.clock:
            first, second = reference.clock.split(), answer.clock.split()
            return first[:1] == second[:1] and (len(first) < 2 or len(second) < 2 or first == second)
        if len(reference.parts) != len(answer.parts):
            return False
        return all(
            same_number(a * answer.parts[-1], b * reference.parts[-1], False, False)
            for a, b in zip(reference.parts, answer.parts, strict=True)
        )
    ratio, other = (reference, answer) if isinstance(reference, Ratio) else (answer, reference)
    if not isinstance(ratio, Ratio) or not isinstance(other, Quantity) or len(ratio.parts) != 2 or ratio.parts[1] == 0:
        return False
    whole = ratio.clock or other.percent or other.unit
    return not whole and same_number(other.value, ratio.parts[0] / ratio.parts[1], False, False)


def _same_set(reference: Value, answer: Value) -> bool:
    first, second = as_numbers(reference), as_numbers(answer)
    if first is None or second is None:
        return False
    names = [value.name for value in (reference, answer) if isinstance(value, NumberSet) and value.name]
    if len(names) == 2 and names[0] != names[1]:
        return False
    return bool(first == second or (first.is_subset(second) is True and second.is_subset(first) is True))


def _same_sequence(reference: Sequence, answer: Sequence) -> bool:
    if reference.kind in _KIND_OF_LIST and answer.kind in _KIND_OF_LIST:
        if {reference.joined, answer.joined} == {r"\and", r"\or"} and not is_numeric(*reference.items):
            return False  # "p and q" is not "p or q", while the solutions 1 and 2 are 1 or 2
        sets = "set" in (reference.kind, answer.kind)
        return _same_members(reference.items, answer.items, sets)
    if reference.kind not in _KIND_OF_LIST and answer.kind not in _KIND_OF_LIST and reference.kind != answer.kind:
        return False
    bracket = reference.kind if reference.kind not in _KIND_OF_LIST else answer.kind
    if "set" in (reference.kind, answer.kind) or (bracket != "()" and reference.kind != answer.kind):
        return False
    return len(reference.items) == len(answer.items) and all(
        same(a, b) for a, b in zip(reference.items, answer.items, strict=True)
    )


def _same_members(first: tuple[Value, ...], second: tuple[Value, ...], sets: bool) -> bool:
    """Each of either has its own in the other; in sets a member may be written twice."""
    if not sets and len(first) != len(second):
        return False
    left = list(second)
    for item in first:
        found = next((i for i, other in enumerate(left) if same(item, other)), None)
        if found is None:
            if sets and any(same(item, other) for other in second):
                continue
            return False
        left.pop(found)
    return not left or (sets and all(any(same(item, other) for item in first) for other in left))
