r"""Reads one expression of normalised LaTeX (or plain arithmetic) into SymPy, whole or not at all.

A recursive-descent reader. math-verify's own (``latex2sympy``) drops what it does not know without a word, takes ``S``,
``N``, ``E`` for things of SymPy's and folds case; it is asked here for sums, products, integrals and limits alone.
Numbers stay exact: a decimal is a fraction. Nothing larger than ``_MOST_BITS`` is computed. Left out: equations,
lists, units (``values``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import sympy
from sympy import Integer, Rational, Symbol

from rlpost.reward.math.normalise import GREEK

_MOST_BITS = 60_000
_MOST_TOKENS = 600
_DEEPEST = 60
_LARGEST_COUNT = 4_000  # argument of a factorial or binomial coefficient
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,6}(?![\d.]))?)|(?P<command>\\[a-zA-Z]+|\\.)"
    r"|(?P<word>(?:arc(?:sin|cos|tan)|a?(?:sinh|cosh|tanh)|a(?:sin|cos|tan)|sin|cos|tan|cot|sec|csc|sqrt|cbrt|log|ln|exp"
    r"|abs|floor|ceil|factorial|pi|inf|infinity|theta|alpha|beta|lambda)(?![a-zA-Z])|[a-zA-Z])|(?P<sign>[-+*/^_()\[\]{}|!,':]))"
)
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "sin": sympy.sin, "cos": sympy.cos, "tan": sympy.tan, "cot": sympy.cot, "sec": sympy.sec, "csc": sympy.csc,
    "arcsin": sympy.asin, "arccos": sympy.acos, "arctan": sympy.atan, "asin": sympy.asin, "acos": sympy.acos,
    "atan": sympy.atan, "arccot": sympy.acot, "sinh": sympy.sinh, "cosh": sympy.cosh, "tanh": sympy.tanh,
    "asinh": sympy.asinh, "acosh": sympy.acosh, "atanh": sympy.atanh, "arcsinh": sympy.asinh, "coth": sympy.coth,
    "ln": sympy.log, "log": sympy.log, "exp": sympy.exp, "abs": sympy.Abs, "floor": sympy.floor,
    "ceil": sympy.ceiling,
}  # fmt: skip
_INVERSE = {"sin": sympy.asin, "cos": sympy.acos, "tan": sympy.atan, "cot": sympy.acot, "sinh": sympy.asinh}
_CALCULUS = frozenset({r"\sum", r"\prod", r"\int", r"\lim", r"\iint", r"\oint"})
_DECORATED = frozenset({"vec", "hat", "bar", "overline", "dot", "ddot", "tilde", "mathcal", "widehat", "mathscr"})
_GROUPS = {"(": ")", "[": "]", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil", r"\lbrace": r"\rbrace"}
_SYMBOLS = frozenset(GREEK.values()) - {"pi"}  # which is a number
_SYMBOLS |= {"AA", "Upsilon", "angle", "ell", "hbar", "nabla", "partial", "triangle"}
_APPLIED = frozenset("fghFGH")
_DIFFERENTIAL = re.compile(r"\\?(?:d|partial)")


class UnreadableError(ValueError):
    """The text is no expression that this module knows."""


def read_expression(text: str) -> Any:
    """The SymPy expression that the text says.

    Raises:
        UnreadableError: it is none, or something in it is too large to compute.
    """
    if any(name in text for name in _CALCULUS):
        return _by_library(text)
    reader = _Reader(_tokens(text))
    try:
        found = reader.sum()
    except (RecursionError, OverflowError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise UnreadableError(f"{type(error).__name__}: {error}") from None
    if reader.position < len(reader.tokens):
        raise UnreadableError(f"left over: {''.join(reader.tokens[reader.position :])[:60]}")
    if found is sympy.nan or found is sympy.zoo or found.has(sympy.nan, sympy.zoo):
        raise UnreadableError("not a number")
    return found


def _by_library(text: str) -> Any:
    from latex2sympy2_extended import latex2sympy  # math-verify's parser
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig

    if r"\text" in text or len(text) > 300:
        raise UnreadableError("words, or too long")
    try:
        found = latex2sympy(text, conversion_config=ConversionConfig(lowercase_symbols=False))
    except Exception as error:  # it raises whatever its parser does
        raise UnreadableError(str(error)) from None
    if not isinstance(found, sympy.Expr):
        raise UnreadableError("not an expression")
    return found


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    at = 0
    text = text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or len(tokens) > _MOST_TOKENS:
            raise UnreadableError(f"not mathematics: {text[at : at + 20]!r}")
        token = match[match.lastgroup or 0]
        if token[0].isdigit() and text[match.start() : match.end()] != token and tokens and tokens[-1][0].isdigit():
            token = " " + token  # a number behind a space and a number: only a mixed number may have that
        tokens.append(token)
        at = match.end()
    if not tokens:
        raise UnreadableError("empty")
    return tokens


class _Reader:
    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.position, self.depth = tokens, 0, 0

    def peek(self, ahead: int = 0) -> str:
        place = self.position + ahead
        return self.tokens[place] if place < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.peek()
        if not token or (wanted and token != wanted):
            raise UnreadableError(f"{wanted or 'more'} is missing before {token!r}")
        self.position += 1
        return token

    def skip(self, *tokens: str) -> bool:
        if self.peek() in tokens:
            self.position += 1
            return True
        return False

    def sum(self) -> Any:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise UnreadableError("nested too deeply")
        found = self.product()
        while self.peek() in ("+", "-"):
            sign = self.take()
            term = self.product()
            found = found + term if sign == "+" else found - term
        self.depth -= 1
        return found

    def product(self) -> Any:
        if self.peek() in ("+", "-"):
            return -self.product() if self.take() == "-" else self.product()
        found = self.power()
        while True:
            if self.skip("*", r"\cdot", r"\times"):
                found = found * self.signed()
            elif self.skip("/"):
                found = _divided(found, self.signed())
            elif self.begins_factor():
                found = found * self.power()
            else:
                return found

    def signed(self) -> Any:
        if self.peek() in ("+", "-"):
            return -self.signed() if self.take() == "-" else self.signed()
        return self.power()

    def begins_factor(self) -> bool:
        """Whether the next token multiplies without a sign; a number never does."""
        token = self.peek()
        if token in ("(", "{", "[") or token in _GROUPS:
            return True
        return token[:1].isalpha() or (token[:1] == "\\" and token[1:] in _MULTIPLIES)

    def power(self) -> Any:
        base = self.postfixed()
        if self.skip("^"):
            exponent = self.exponent()
            return _power(base, exponent)
        return base

    def exponent(self) -> Any:
        if self.peek() in ("-", "+"):
            return -self.exponent() if self.take() == "-" else self.exponent()
        return self.group() if self.peek() == "{" else self.postfixed()

    def postfixed(self) -> Any:
        found = self.atom()
        while True:
            if self.skip("!"):
                found = _factorial(found)
            elif self.skip(r"\degree"):
                found = found * sympy.pi / 180
            elif self.skip(r"\%"):
                found = found / 100
            else:
                return found

    def group(self) -> Any:
        self.take("{")
        found = self.sum()
        self.take("}")
        return found

    def argument(self) -> Any:
        r"""What a command takes: a group, or one token; of a number its first digit, as in ``\frac12``."""
        if self.peek() == "{":
            return self.group()
        token = self.peek().strip()
        if token.isdigit() and len(token) > 1:
            self.tokens[self.position] = token[1:]
            return Integer(token[0])
        return self.atom()

    def atom(self) -> Any:
        token = self.peek()
        if token.lstrip()[:1].isdigit() or token[:1] == ".":
            return self.number()
        if token == "{":
            return self.group()
        if token == "|":
            return self.absolute()
        if token in _GROUPS and token != r"\lbrace":
            return self.bracketed()
        self.take()
        if token.isalpha():
            return self.named(token)
        if token[:1] == "\\" and token[1:].isalpha():
            return self.command(token[1:])
        raise UnreadableError(f"unexpected {token!r}")

    def number(self) -> Any:
        value = _number(self.take())
        mixed = self.peek()
        if value.is_Integer and mixed == r"\frac":
            return value + self.proper_fraction(value)
        if value.is_Integer and mixed[:1] == " ":
            over, slash, under = mixed[1:], self.peek(1), self.peek(2)
            if slash == "/" and over.isdigit() and under.isdigit() and 0 < int(over) < int(under):
                self.position += 3
                return value + Rational(int(over), int(under))
        return value

    def proper_fraction(self, whole: Any) -> Any:
        r"""``2\frac{1}{2}`` is 2.5 where the fraction is one of digits below 1, else a product."""
        before = self.position
        numbers = re.fullmatch(r"\\frac\{(\d+)\}\{(\d+)\}", "".join(self.tokens[before : before + 7]))
        fraction = self.atom()
        plain = self.tokens[before + 1 : self.position]
        if numbers or all(token.isdigit() for token in plain if token not in "{}"):
            return fraction if 0 < fraction < 1 else whole * fraction - whole
        return whole * fraction - whole

    def bracketed(self) -> Any:
        opening = self.take()
        found = self.sum()
        self.take(_GROUPS[opening])
        if opening == r"\lfloor":
            return sympy.floor(found)
        return sympy.ceiling(found) if opening == r"\lceil" else found

    def absolute(self) -> Any:
        self.take("|")
        found = self.sum()
        self.take("|")
        return sympy.Abs(found)

    def named(self, token: str) -> Any:
        """A letter or one of Python's names."""
        if token in ("pi", "inf", "infinity"):
            return sympy.pi if token == "pi" else sympy.oo
        if token in ("sqrt", "cbrt"):
            return _power(
                self.bracketed() if self.peek() == "(" else self.argument(), Rational(1, 2 + (token == "cbrt"))
            )
        if token in _FUNCTIONS:
            return self.function(token)
        if token == "factorial":
            return _factorial(self.bracketed())
        return self.symbol(token)

    def command(self, name: str) -> Any:
        if name == "frac":
            return self.fraction()
        if name == "sqrt":
            return self.root()
        if name == "binom":
            return _binomial(self.argument(), self.argument())
        if name in ("pi", "infty"):
            return sympy.pi if name == "pi" else sympy.oo
        if name in _FUNCTIONS:
            return self.function(name)
        if name in _DECORATED:
            return self.symbol(f"\\{name}{{{self.raw_group()}}}")
        if name == "text":
            return self.text()
        if name in _SYMBOLS:
            return self.symbol(f"\\{name}")
        raise UnreadableError(f"unknown command \\{name}")

    def text(self) -> Any:
        """A roman letter or function; words are no mathematics."""
        word = self.raw_group()
        if word in _FUNCTIONS:
            return self.function(word)
        if len(word) == 1 and word.isalpha():
            return self.symbol(word)
        raise UnreadableError(f"words: {word[:30]}")

    def fraction(self) -> Any:
        start = self.position
        over = self.argument()
        middle = self.position
        under = self.argument()
        above, below = ("".join(self.tokens[a:b]).strip("{}") for a, b in ((start, middle), (middle, self.position)))
        if _DIFFERENTIAL.match(above) and re.fullmatch(r"(?:d|\\partial)[a-z](?:\^\{?\d\}?)?", below):
            return Symbol(f"{above}/{below}")  # a derivative is no quotient
        return _divided(over, under)

    def root(self) -> Any:
        degree = Integer(2)
        if self.skip("["):
            degree = self.sum()
            self.take("]")
        under = self.bracketed() if self.peek() == "(" else self.argument()
        return _power(under, _divided(Integer(1), degree))

    def function(self, name: str) -> Any:
        r"""``\sin^2 x``, ``\sin^{-1} x``, ``\log_{10} 250``, ``\sin 2x \cos x``, ``\ln(x)``."""
        base = exponent = None
        for _ in range(2):
            if self.skip("_"):
                base = self.argument()
            elif self.skip("^"):
                exponent = self.exponent()
        function = _FUNCTIONS[name]
        if exponent == -1 and name in _INVERSE:
            function, exponent = _INVERSE[name], None
        if self.peek() == "(":
            inside = self.bracketed()
        else:
            inside = self.signed()
            while self.begins_factor() and not self.begins_function():
                inside = inside * self.power()
            if self.peek() == "/" and name not in ("ln", "log", "exp", "abs"):
                self.take()
                inside = _divided(inside, self.power())
        value = function(inside) if base is None else _divided(sympy.log(inside), sympy.log(base))
        return value if exponent is None else _power(value, exponent)

    def begins_function(self) -> bool:
        return self.peek().lstrip("\\") in _FUNCTIONS

    def symbol(self, name: str) -> Any:
        """A letter with its index and primes; applied where it is named like a function, or to one name or number."""
        for _ in range(4):
            if self.skip("_"):
                name += f"_{self.raw_group()}"
            elif self.skip("'"):
                name += "'"
            elif self.peek() == "^" and (self.peek(1) in ("'", "*") or self.peek(1) + self.peek(2) == "{'"):
                self.take()
                name += f"^{self.raw_group()}"
        if self.peek() == "(" and (name[0] in _APPLIED or name == "C" or self.peek(2) == ")"):
            return self.applied(name)
        if name == "e":
            return sympy.E
        return sympy.I if name == "i" else Symbol(name)

    def applied(self, name: str) -> Any:
        self.take("(")
        arguments = [self.sum()]
        while self.skip(","):
            arguments.append(self.sum())
        self.take(")")
        if name == "C" and len(arguments) == 2:
            return _binomial(*arguments)
        return sympy.Function(name)(*arguments)

    def raw_group(self) -> str:
        """The text of a group or of one token, unread."""
        if self.peek() != "{":
            return self.take().strip()
        depth = 0
        words: list[str] = []
        while True:
            token = self.take()
            depth += (token == "{") - (token == "}")
            if depth == 0:
                return "".join(words[1:]).strip()
            words.append(token)


_MULTIPLIES = (
    frozenset({"frac", "sqrt", "binom", "pi", "infty", "text", "lfloor", "lceil"})
    | _SYMBOLS
    | _DECORATED
    | set(_FUNCTIONS)
)


def _number(token: str) -> Any:
    mantissa, _, exponent = token.strip().lower().partition("e")
    if len(mantissa) > 2000 or abs(int(exponent or 0)) > 10_000:
        raise UnreadableError("a number too long")
    whole, _, digits = mantissa.partition(".")
    value = Rational(int((whole + digits) or 0), 10 ** len(digits))
    return value * Integer(10) ** int(exponent) if exponent else value


def _divided(over: Any, under: Any) -> Any:
    if under == 0:
        raise UnreadableError("division by zero")
    return over / under


def _power(base: Any, exponent: Any) -> Any:
    if base == 0 and not exponent.is_positive:
        raise UnreadableError("a power of zero")
    if exponent.is_number and exponent.is_comparable:
        size = abs(exponent)
        if size > 10**6 or _bits(base) * size > _MOST_BITS:
            raise UnreadableError("a power too large")
    return base**exponent


def _bits(value: Any) -> int:
    """The size of the largest number in it, in bits; at least 1."""
    return max([1, *(max(abs(number.p).bit_length(), number.q.bit_length()) for number in value.atoms(Rational))])


def _factorial(value: Any) -> Any:
    if value.is_number and not (value.is_Integer and 0 <= value <= _LARGEST_COUNT):
        raise UnreadableError("a factorial of a number too large, or of none")
    return sympy.factorial(value)


def _binomial(over: Any, under: Any) -> Any:
    for value in (over, under):
        if value.is_number and not (value.is_Integer and 0 <= value <= _LARGEST_COUNT):
            raise UnreadableError("a binomial coefficient of numbers too large, or of none")
    return sympy.binomial(over, under)
