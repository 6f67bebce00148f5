r"""One verdict: whether the final answer of a text is a reference, and the one name of what it says.

Runs in a session's child process, as hostile texts may make any reader slow. Left out: time and memory bounds (the
session's), and where references come from (``reference``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sympy

from rlpost.reward.math.compare import same
from rlpost.reward.math.extract import final_answer, reference_answer
from rlpost.reward.math.values import Quantity, Relation, Value, Words, is_words, read, tidy, words_key

_CHOICE = re.compile(r"\(?(?:\\text\s*\{)?\s*\(?([A-Z])\s*[).:]?\s*\}?\)?")
_CHOSEN = re.compile(
    r"(?:(?:\\text\s*)?\{)?\s*(?:\(([A-Z])\)|([A-Z])\s*[).:])(?:\s*\}|\s|$)(?!\s*(?:[-+*/^_=<>,;|&]|\\(?:or|and|sep|cdot|times)))"
)
_OTHER_CHOICE = re.compile(r"\\(?:or|sep)\b|(?<![a-zA-Z])[A-Z]\s*[).:]")
_LONGEST_REFERENCE = 1500
_MOST_WORDS = 30


@dataclass(frozen=True, slots=True)
class _Read:
    text: str
    readings: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """``name``: what the answer says in one way of writing; ``as_text``: the references were read as texts alone;
    ``problem``: why nothing can be judged by one of them."""

    right: bool = False
    name: str = ""
    as_text: bool = False
    problem: str = ""


def judge(answer: str, references: tuple[str, ...], mode: str = "any") -> Verdict:
    """Whether the text's final answer is one of the references."""
    wrong = next(filter(None, map(problem, references)), "")
    if wrong:
        return Verdict(problem=wrong)
    expected = [_reference(reference) for reference in references]
    as_text = all(_is_text(one) and not is_words(one.text) for one in expected)
    said = final_answer(answer, mode)
    if said is None or not said.strip():
        return Verdict(as_text=as_text)
    found = _read(said)
    for one in expected:
        if _agree(one, found):
            return Verdict(True, _name(one), as_text)
    return Verdict(False, _name(found), as_text)


@lru_cache(maxsize=1024)
def problem(reference: str) -> str:
    """Why nothing can be judged by this reference; empty where all is well."""
    if len(reference_answer(reference)) > _LONGEST_REFERENCE:
        return f"it has over {_LONGEST_REFERENCE} characters, and names no answer by a box, '####' or 'The answer is'"
    one = _reference(reference)
    if not re.search(r"\w|\\", re.sub(r"\\(?:ldots|sep)", "", one.text)):
        return "it is empty but for signs"
    if not _is_text(one):
        return ""
    braces = re.sub(r"\\[{}]", "", one.text)
    if braces.count("{") != braces.count("}"):
        return "its braces do not close"
    if "\n" in reference.strip() and one.text == tidy(reference):
        return "it has several lines, and none names an answer by a box, '####' or 'The answer is'"
    if len(one.text.split()) > _MOST_WORDS:
        return "it is a sentence of words, which no answer can be compared with"
    return ""


@lru_cache(maxsize=1024)  # a group's answers are judged by one reference
def _reference(text: str) -> _Read:
    return _read(reference_answer(text))


def _read(text: str) -> _Read:
    return _Read(tidy(text[: 2 * _LONGEST_REFERENCE]), tuple(read(text)))


def _is_text(one: _Read) -> bool:
    return all(isinstance(reading, Words) for reading in one.readings)


def _agree(reference: _Read, answer: _Read) -> bool:
    if _bare(reference.text) == _bare(answer.text) != "":
        return True
    choice = _CHOICE.fullmatch(reference.text)
    if choice:
        chosen = _CHOSEN.match(answer.text) or _CHOICE.fullmatch(answer.text)
        if chosen and not _OTHER_CHOICE.search(answer.text, chosen.end()):
            return choice[1] == next(group for group in chosen.groups() if group)
    if any(same(a, b) for a in reference.readings for b in answer.readings):
        return True
    texts = _is_text(reference) or _is_text(answer)
    if not (texts and is_words(reference.text) and is_words(answer.text)):
        return False
    return words_key(reference.text) == words_key(answer.text) != ""


def _bare(text: str) -> str:
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text)


def _name(one: _Read) -> str:
    """The same for equal answers as far as that is cheap: fractions for decimals, words without case."""
    value = one.readings[0]
    try:
        return _value_name(value)
    except ValueError:  # an integer too long to be written out
        return one.text


def _value_name(value: Value) -> str:
    if isinstance(value, Relation) and value.name:
        value = value.right
    if isinstance(value, Quantity) and not value.percent:
        return str(value.value)
    if isinstance(value, Words):
        return words_key(value.text)
    return str(sympy_text(value))


def sympy_text(value: Any) -> str:
    """A value of several parts as a text, those of lists in order of their texts."""
    items = getattr(value, "items", None)
    if items is not None:
        parts = [sympy_text(item) for item in items]
        return f"{value.kind}({', '.join(sorted(parts) if value.kind in ('list', 'set', 'pm') else parts)})"
    if isinstance(value, Quantity):
        return str(sympy.sympify(value.value)) + ("%" if value.percent else "")
    return str(value)
