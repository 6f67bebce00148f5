r"""What one answer means: a quantity, a list, a bracketed pair, a set of numbers, a matrix, a relation, a ratio, words.

``read(text)`` gives its readings, most often one; ``1,234`` has two, a number and a list. Left out: where the answer
stands in a text (``extract``) and when two of them are the same (``compare``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import sympy

from rlpost.reward.math.expression import UnreadableError, read_expression
from rlpost.reward.math.normalise import normalise
from rlpost.reward.math.units import split_percent, split_unit

_LONGEST = 1500
_MOST_ITEMS = 200
_DEEPEST = 8


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number or expression; ``decimal``: written with a decimal point or in E-notation."""

    value: Any
    decimal: bool = False
    percent: bool = False
    unit: str = ""
    letter: bool = False  # the unit is a bare letter: as a reference, it must be in the answer too


@dataclass(frozen=True, slots=True)
class Sequence:
    """``kind``: ``list`` or ``set``, in any order, or the two brackets, in order; ``joined``: by ``and`` or ``or``."""

    kind: str
    items: tuple[Value, ...]
    joined: str = ""


@dataclass(frozen=True, slots=True)
class NumberSet:
    """A union of intervals and points; ``name``: of the unknown, where the text has it."""

    numbers: Any
    name: str = ""


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of values."""

    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True, slots=True)
class Relation:
    """``left sign right``; ``name``: the left side, where it is but the name of a thing that may be given a value."""

    sign: str
    left: Value
    right: Value
    name: str = ""


@dataclass(frozen=True, slots=True)
class Ratio:
    """``3:2``; ``clock``: it may be a time of day, which is no ratio."""

    parts: tuple[Any, ...]
    clock: str = ""


@dataclass(frozen=True, slots=True)
class Based:
    """Digits to a written base."""

    digits: str
    base: int


@dataclass(frozen=True, slots=True)
class Words:
    """What is compared as a text."""

    text: str


Value = Quantity | Sequence | NumberSet | Matrix | Relation | Ratio | Based | Words
_BASES = dict(
    zip(
        ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "sixteen"],
        (*range(2, 13), 16),
        strict=True,
    )
)
_OPEN, _CLOSE = (
    ("(", "[", "{", r"\lbrace", r"\langle", r"\lfloor", r"\lceil", r"\begin"),
    (")", "]", "}", r"\rbrace", r"\rangle", r"\rfloor", r"\rceil", r"\end"),
)
_PIECE = re.compile(r"\\[a-zA-Z]+|\\.|.", re.DOTALL)
_THOUSANDS = re.compile(r"(?<![\d.,])([1-9]\d{0,2})((?:,\d{3})+)(?!\d|,\d)")
_SPACED = re.compile(r"(?<![\d.,])([1-9]\d{0,2})((?: \d{3})+)(?![\d ]*\d|,\d)")
_MATRIX = re.compile(
    r"[(\[|]?\s*\\begin\s*\{([bpvBV]?matrix|smallmatrix|array)\}\s*(?:\{[lcr| ]*\})?(.*?)\\end\s*\{\1\}\s*[)\]|]?",
    re.DOTALL,
)
_BASED = re.compile(
    r"\(?(?:\\text)?\{?([0-9A-Fa-f]+)\}?\)?\s*_\s*\{?\s*(?:\\text\s*\{)?\s*(?:base\s*\}?\s*)?(\d+|[a-z]+)\s*\}?\}?"
)
_RATIO = re.compile(r"[^:]+(?::[^:]+)+")
_CLOCK = re.compile(r"(\d{1,2}):([0-5]\d)(?::[0-5]\d)?")
_SIGNS = {
    "=": "=",
    r"\approx": "=",
    r"\equiv": "=",
    r"\sim": "=",
    "<": "<",
    ">": ">",
    r"\le": "<=",
    r"\ge": ">=",
    r"\ne": "!=",
    r"\in": "in",
}
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}
_LETTER = (
    r"(?:[a-zA-Z]|\\(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|nu|phi|psi|rho|sigma|tau|omega|eta|xi|chi|kappa"
    r"|Delta|Omega|Sigma|Phi|ell|zeta))"
)
_INDEX = r"(?:_(?:\{[^{}]*(?:\{[^{}]*\})?[^{}]*\}|\w|\\[a-z]+)|\^\{?(?:\*|'+)\}?|'+|\s)*"
_MARKED = (
    r"\\(?:vec|hat|bar|overline|dot|ddot|tilde|mathcal|overrightarrow|widehat|triangle|angle|arc)"
    r"\s*(?:\{[^{}]*\}|[a-zA-Z]{1,4})"
)
_NAME = re.compile(
    rf"(?:{_LETTER}{_INDEX}|{_MARKED}{_INDEX}"  # x, x_1, y', \vec{{v}}
    r"|(?:\\mathbb\s*\{?[EP]\}?|E|(?:\\text\s*\{)?Var\}?)\s*[\[(].*[\])]"
    rf"|{_LETTER}{_INDEX}(?:\^\{{?-1\}}?)?\s*\((?:[^()]|\([^()]*\))*\)"  # f(x), P(A)
    rf"|\(\s*{_LETTER}{_INDEX}(?:,\s*{_LETTER}{_INDEX})+\)"  # (x, y)
    r"|(?:m\s*)?\\angle\s*[A-Z]{1,4}|\\triangle\s*[A-Z]{3}|[A-Z]{2,6}|\\overline\s*\{[A-Z]+\}|\[[A-Z]{3,}\]|\|[A-Z]{2}\||\|\\?[a-z]+\s*\{?[A-Za-z]*\}?\|(?<=\})"
    r"|\\(?:det|lim|max|min|sup|inf|gcd|deg|dim|arg|Pr|sum|prod|int|binom|tan|sin|cos|cot|sec|csc|lcm)(?![a-zA-Z]).*"
    r"|(?:\\text\s*\{[^{}]*\}\s*)+(?:\([^()]*\)|_\{?\w+\}?)?|(?:gcd|lcm|det|Area|area)\s*\(.*\)"
    r"|\\frac\s*\{\s*(?:d|\\partial)[^{}]*\}\s*\{\s*(?:d|\\partial)[^{}]*\})"
)
_LABEL = re.compile(
    r"^(?:\\text\s*\{\s*(?:the\s+)?(?:final\s+)?answers?(?:\s+is)?\s*[:=]?\s*\}|(?:the\s+)?(?:final\s+)?answers?\s*(?:is\b|:|=))\s*:?\s*",
    re.IGNORECASE,
)
_WORD_TEXT = re.compile(r"(?:\\text\s*\{[^{}]*\}|[a-zA-Z][a-zA-Z'\-]+|\d+|[-.!:()/ ]|\\(?:and|or) )+")


def read(text: str) -> list[Value]:
    """The readings of an answer, the likeliest first; at least one, as what nothing else reads is ``Words``."""
    if len(text) > _LONGEST:
        return [Words(text)]
    plain = tidy(text)
    joined = _join_thousands(plain)
    rounded = _ROUNDED.fullmatch(joined)
    if rounded and _rounds_to(*rounded.groups()):
        return [_top(rounded[1], 0), _top(rounded[2], 0)]
    found = [_top(joined, 0)]
    if joined != plain:
        found.append(_top(plain, 0))
    return found


_ROUNDED = re.compile(r"(.+?)\\approx\s*(-?\d*\.\d+)")


def _rounds_to(exact: str, decimal: str) -> bool:
    """Whether a decimal is what it is said to be the rounded value of; both are then what the answer says."""
    value = _top(exact.rpartition("=")[2].strip(), 0)
    if not isinstance(value, Quantity) or value.decimal or not value.value.is_number or value.value.is_Integer:
        return False
    digits = len(decimal.partition(".")[2])
    return value.value.is_real is True and bool(abs(value.value - sympy.Rational(decimal)) * 10**digits <= 0.51)


def tidy(text: str) -> str:
    """The answer in one way of writing, bare of bold type, labels and punctuation around it."""
    text = text.strip()
    for _ in range(4):
        before = text
        for mark in ("**", "__", "`", "*", "_", '"', "'"):
            if text.startswith(mark) and text.endswith(mark) and len(text) > 2 * len(mark):
                text = text[len(mark) : -len(mark)].strip()
        text = text.rstrip(".;,").strip() if not text.endswith(("...", "..")) else text
        if text == before:
            break
    text = _LABEL.sub("", normalise(text.strip("*`").rstrip("_"))).strip()
    text = re.sub(r"^[=:]\s*", "", text)
    return text.rstrip(".;, ") if not re.search(r"\\ldots\s*$|\b(?:in|ft|sq|m)\.$", text) else text


def _join_thousands(text: str) -> str:
    """Commas and spaces between groups of three digits taken out, where brackets do not make a list of them."""
    spaced = _SPACED.sub(lambda m: m[1] + m[2].replace(" ", ""), text)
    if re.search(r"[(\[]", spaced) and not re.search(r",\s", spaced):
        return spaced
    return _THOUSANDS.sub(lambda m: m[1] + m[2].replace(",", ""), spaced)


def split(text: str, cut: Callable[[str], bool]) -> list[tuple[str, str]]:
    """The pieces of a text between the signs that ``cut`` picks outside all brackets, each with the sign before it."""
    parts: list[tuple[str, str]] = []
    sign, depth, piece = "", 0, ""
    for match in _PIECE.finditer(text):
        token = match[0]
        depth += (token in _OPEN) - (token in _CLOSE)
        if depth == 0 and token not in _CLOSE and cut(token):
            parts.append((sign, piece.strip()))
            sign, piece = token, ""
        else:
            piece += token
    parts.append((sign, piece.strip()))
    return parts


def _top(text: str, depth: int) -> Value:
    """A list, or one thing."""
    if depth > _DEEPEST:
        return Words(text)
    spoken = _spoken(text)
    if spoken is not None:
        return spoken
    parts = split(text, lambda token: token in (",", ";", r"\and", r"\or", r"\sep"))
    items = [(sign, piece) for sign, piece in parts if piece]
    if len(items) == 1:
        return _one(items[0][1], depth)
    if not items or len(items) > _MOST_ITEMS:
        return Words(text)
    values = [value for _, piece in items for value in _several(_one(piece, depth + 1))]
    signs = {sign for sign, _ in parts[1:]}
    if all(isinstance(value, NumberSet) and value.name for value in values) and not signs & {";", r"\sep"}:
        sets = [value.numbers for value in values if isinstance(value, NumberSet)]
        joined = sympy.Union(*sets) if r"\or" in signs else sympy.Intersection(*sets)
        return NumberSet(joined, values[0].name if isinstance(values[0], NumberSet) else "")
    first = values[0]
    if isinstance(first, Relation) and first.name and not any(isinstance(value, Relation) for value in values[1:]):
        return Relation("=", first.left, Sequence("list", (first.right, *values[1:])), first.name)  # n = 1, 2, 3
    joined = signs & {r"\and", r"\or"}
    return Sequence("list", tuple(values), joined.pop() if len(joined) == 1 else "")


def _several(value: Value) -> tuple[Value, ...]:
    """Of ``1 \\pm 2`` both values."""
    if isinstance(value, Sequence) and value.kind == "pm":
        return value.items
    return (value,)


def _one(text: str, depth: int) -> Value:
    for reader in (_matrix, _relation, _braced, _signed_pair, _bracketed, _union, _ratio, _based, _quantity):
        found = reader(text, depth)
        if found is not None:
            return found
    return Words(text)


def _matrix(text: str, depth: int) -> Value | None:
    match = _MATRIX.fullmatch(text)
    if not match or match[1].startswith("v") or (match[0][0] == "|" and match[1] == "array"):
        return None
    rows = [row for _, row in split(match[2], lambda token: token == r"\sep") if row]
    cells = [[cell for _, cell in split(row, lambda token: token == "&")] for row in rows]
    return Matrix(tuple(tuple(_top(cell, depth + 1) for cell in row) for row in cells))


def _relation(text: str, depth: int) -> Value | None:
    parts = split(text, lambda token: token in _SIGNS)
    if len(parts) == 1:
        return None
    signs = [_SIGNS[sign] for sign, _ in parts[1:]]
    sides = [side for _, side in parts]
    if not sides[0] and len(sides) == 2 and signs == ["="]:
        return _one(sides[1], depth)
    if not all(sides):
        return None
    if set(signs) == {"="}:
        return _equation(sides, depth)
    if signs == ["in"] and _NAME.fullmatch(sides[0]):
        inside = _top(sides[1], depth + 1)
        return replace(inside, name=sides[0]) if isinstance(inside, NumberSet) else inside
    if "=" in signs or "in" in signs:
        return None
    return _inequality(sides, signs, depth)


def _equation(sides: list[str], depth: int) -> Value | None:
    """``name = value``, ``2 + 3 = 5`` (its value, if it is true), or an equation of two sides."""
    values = [_several_as_one(side, depth) for side in sides]
    named = _NAME.fullmatch(sides[0]) is not None
    rest = values[1:] if named else values
    if len(rest) > 1 and not _chained(rest):
        if len(sides) == 2:
            return (
                Relation("=", values[0], values[1])
                if not is_numeric(values[0], values[1])
                else Words(" = ".join(sides))
            )
        return Words(" = ".join(sides))
    if named:
        if sides[0] == sides[-1]:
            return Words(" = ".join(sides))
        return Relation("=", values[0], rest[-1], re.sub(r"[\s{}]|\\text", "", sides[0]))
    return rest[-1]


_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
)
_SMALL += " eighteen nineteen"
_SPOKEN = {word: number for number, word in enumerate(_SMALL.split())}
_SPOKEN |= {
    word: 20 + 10 * i
    for i, word in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"])
}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6}


def _spoken(text: str) -> Value | None:
    """``seventy-three``, ``two hundred and five``: whole numbers in English, and no sums of several."""
    if len(text) > 120 or (not text[-1:].isalpha() and not text.endswith("}")):
        return None
    plain = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text).lower()
    words = re.sub(r"(hundred|thousand|million)\s+\\?and\b", r"\1", plain).replace("-", " ").split()
    if not words or not all(word in _SPOKEN or word in _SCALES for word in words):
        return None
    total = part = 0
    room = 100  # what is said next must be smaller
    for word in words:
        if word in _SCALES:
            part = max(part, 1) * _SCALES[word]
            total, part = (total + part, 0) if word != "hundred" else (total, part)
            room = 100
        elif _SPOKEN[word] >= room:
            return None
        else:
            part += _SPOKEN[word]
            room = 10 if _SPOKEN[word] >= 20 else 1
    return Quantity(sympy.Integer(total + part))


def _several_as_one(side: str, depth: int) -> Value:
    value = _one(side, depth + 1)
    return Sequence("list", value.items) if isinstance(value, Sequence) and value.kind == "pm" else value


def is_numeric(*values: Value) -> bool:
    return all(isinstance(value, Quantity) and value.value.is_number for value in values)


def _chained(values: list[Value]) -> bool:
    """Whether all sides of an equality are numbers and equal."""
    if not is_numeric(*values):
        return False
    numbers = [value.value for value in values if isinstance(value, Quantity)]
    return all(
        bool(abs(sympy.N(number - numbers[-1], 30)) <= abs(sympy.N(numbers[-1], 30)) * 1e-9) for number in numbers
    )


def _inequality(sides: list[str], signs: list[str], depth: int) -> Value | None:
    """An interval of the one unknown, else the relation itself."""
    values = [_one(side, depth + 1) for side in sides]
    if len(sides) == 2 and all(isinstance(value, Quantity) for value in values):
        left, right = values
        if _is_unknown(left) and is_numeric(right):
            return NumberSet(_half_line(signs[0], right), sides[0])
        if _is_unknown(right) and is_numeric(left):
            return NumberSet(_half_line(_TURNED[signs[0]], left), sides[1])
        return Relation(signs[0], left, right)
    if len(sides) == 3 and _is_unknown(values[1]) and is_numeric(values[0], values[2]) and "!=" not in signs:
        below, above = _half_line(_TURNED[signs[0]], values[0]), _half_line(signs[1], values[2])
        return NumberSet(sympy.Intersection(below, above), sides[1])
    return None


def _is_unknown(value: Value) -> bool:
    return isinstance(value, Quantity) and isinstance(value.value, sympy.Symbol)


def _half_line(sign: str, end: Value) -> Any:
    assert isinstance(end, Quantity)
    value = end.value
    if sign == "!=":
        return sympy.Complement(sympy.S.Reals, sympy.FiniteSet(value))
    if sign in ("<", "<="):
        return sympy.Interval(-sympy.oo, value, True, sign == "<")
    return sympy.Interval(value, sympy.oo, sign == ">", True)


def _braced(text: str, depth: int) -> Value | None:
    inner = _inside(text, "{", "}")
    if inner is not None:
        return _top(inner, depth + 1)
    inner = _inside(text, r"\lbrace", r"\rbrace")
    if inner is None and text not in (r"\emptyset",):
        return None
    if not inner or not inner.strip():
        return NumberSet(sympy.S.EmptySet)
    if len(split(inner, lambda token: token in ("|", ":"))) > 1:
        return Words(text)
    value = _top(inner, depth + 1)
    return (
        Sequence("set", value.items)
        if isinstance(value, Sequence) and value.kind in ("list", "pm")
        else Sequence("set", (value,))
    )


def _inside(text: str, opening: str, closing: str) -> str | None:
    """What stands between the two, where they enclose the whole text."""
    if not (text.startswith(opening) and text.endswith(closing)):
        return None
    depth = 0
    for match in _PIECE.finditer(text):
        depth += (match[0] in _OPEN) - (match[0] in _CLOSE)
        if depth <= 0 and match.end() < len(text) and match[0] in _CLOSE:
            return None
    inner = text[len(opening) : len(text) - len(closing)]
    return inner.strip() if depth == 0 else None


def _bracketed(text: str, depth: int) -> Value | None:
    for opening in ("(", "[", r"\langle", "]"):
        for closing in (")", "]", r"\rangle", "["):
            inner = _inside(text, opening, closing) if {opening, closing} <= set(_OPEN) | set(_CLOSE) else None
            if inner is None:
                continue
            parts = [piece for _, piece in split(inner, lambda token: token in (",", ";"))]
            kind = (opening + closing).replace(r"\langle", "(").replace(r"\rangle", ")")
            if len(parts) == 1:
                return _top(parts[0], depth + 1) if parts[0] and kind in ("()", "[]") else None
            if not all(parts):
                return None
            return Sequence(kind, tuple(_top(part, depth + 1) for part in parts))
    return None


def _union(text: str, depth: int) -> Value | None:
    """Intervals and sets with union, intersection and difference between; ``\\R``."""
    if text in (r"\R", r"\text{all real numbers}", r"\text{all reals}"):
        return NumberSet(sympy.S.Reals)
    operators = {r"\cup": sympy.Union, r"\cap": sympy.Intersection, r"\setminus": sympy.Complement}
    parts = split(text, lambda token: token in operators)
    if len(parts) == 1:
        return None
    found = None
    for sign, piece in parts:
        numbers = as_numbers(_top(piece, depth + 1)) if piece else None
        if numbers is None:
            return None
        found = numbers if found is None else operators[sign](found, numbers)
    return NumberSet(found)


def as_numbers(value: Value) -> Any:
    """The set of real numbers that an interval, a set or an inequality is; None where it is none."""
    if isinstance(value, NumberSet):
        return value.numbers
    if isinstance(value, Relation) and value.sign == "=" and value.name:
        return as_numbers(value.right)
    if not isinstance(value, Sequence) or not is_numeric(*value.items):
        return None
    ends = [item.value for item in value.items if isinstance(item, Quantity)]
    if value.kind == "set":
        return sympy.FiniteSet(*ends)
    if value.kind in ("list", "pm") or len(ends) != 2 or not all(end.is_extended_real for end in ends):
        return None
    return sympy.Interval(*ends, value.kind[0] == "(", value.kind[1] == ")")


def _signed_pair(text: str, depth: int) -> Value | None:
    if r"\pm" not in text and r"\mp" not in text:
        return None
    turned = {r"\pm": ("+", "-"), r"\mp": ("-", "+")}
    both = [re.sub(r"\\pm(?![a-z])|\\mp(?![a-z])", lambda m, i=i: turned[m[0]][i], text) for i in (0, 1)]  # type: ignore[misc]
    return Sequence("pm", tuple(_one(one, depth + 1) for one in both)) if depth < _DEEPEST else None


def _ratio(text: str, depth: int) -> Value | None:
    text = re.sub(r"\s*(?:\\text\s*\{\s*to\s*\}|\bto\b)\s*", ":", text)
    if not _RATIO.fullmatch(text):
        return None
    head, unit, _, _ = split_unit(text)
    clock = _CLOCK.fullmatch(head.strip())
    try:
        parts = tuple(read_expression(part) for part in head.split(":"))
    except UnreadableError:
        return None
    return Ratio(parts, f"{int(clock[1])}:{clock[0].split(':', 1)[1]} {unit}".strip() if clock else "")


def _based(text: str, depth: int) -> Value | None:
    match = _BASED.fullmatch(text)
    if not match or not match[1][0].isdigit() or text.startswith("0_"):
        return None
    base = int(match[2]) if match[2].isdigit() else _BASES.get(match[2], 0)
    return Based(match[1].upper().lstrip("0") or "0", base) if 2 <= base <= 36 else None


def _quantity(text: str, depth: int) -> Value | None:
    text, percent = split_percent(text)
    head, unit, amount, letter = split_unit(text)
    for candidate, name, times in ((head, unit, amount), (text, "", 1)):
        try:
            value = read_expression(candidate)
        except UnreadableError:
            continue
        if re.fullmatch(r"[a-zA-Z]{3,}", candidate):
            return None  # a word, not a product of letters
        decimal = (
            bool(re.search(r"\d\.\d|\d\.(?!\d)|(?<![\d.])\.\d|\d[eE][-+]?\d", candidate)) or candidate[:7] == "arcsin("
        )
        return Quantity(value * times, decimal, percent, name, letter and name != "")
    return None


def words_key(text: str) -> str:
    """Words in one way of writing: no LaTeX, no case, no articles, no punctuation; case stays in names of points."""
    plain = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text)
    plain = re.sub(r"[{}\s.,;:!?'\"$]+|\\(?:and|or|sep) ", " ", plain).strip()
    plain = re.sub(r"^(?:an?|the)\s+", "", plain, flags=re.IGNORECASE)
    return plain if re.fullmatch(r"[A-Z]{1,4}", plain) and plain not in ("NO", "YES", "DNE", "TRUE") else plain.lower()


def is_words(text: str) -> bool:
    """Whether the text is plain words, in or out of ``\\text``."""
    return bool(_WORD_TEXT.fullmatch(text)) and bool(re.search(r"[a-zA-Z]", text))


def walk(value: Value) -> Iterator[Value]:
    """The value and all that it is made of."""
    yield value
    parts: tuple[Any, ...] = ()
    if isinstance(value, Sequence):
        parts = value.items
    elif isinstance(value, Matrix):
        parts = tuple(cell for row in value.rows for cell in row)
    elif isinstance(value, Relation):
        parts = (value.left, value.right)
    for part in parts:
        yield from walk(part)
