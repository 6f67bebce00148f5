"""Where the answer is in a text, and whether it equals another: runs in a session's child process, never in ours.

math-verify does the mathematics; it may take for ever on a hostile text, which is why it runs there. Left out: time
and memory bounds (the session's).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

_TAIL = 4000  # characters at the end of an answer that names no answer
_NUMBER = r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+]?\.\d+"
_PLAIN = re.compile(rf"\s*([-+]?)\s*(?:\\?[$€£¥])?\s*({_NUMBER})\s*(\\?%|percent)?\s*\.?\s*")
_LEADING = re.compile(rf"\s*(-?)\s*\\?\$?\s*({_NUMBER})\s*(%?)(?![\d.,]*\s*[/^*\\])")
_BRACE = re.compile(r"\\(boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_SEPARATOR = re.compile(r"(?<=\d)(?:\{,\}|\\,|\\!,|,\\!|\u00a0|\u202f|\u2009)(?=\d{3}(?!\d))")
_BOXED = [LatexExtractionConfig(boxed_match_priority=0)]
_ANYWHERE = [LatexExtractionConfig(), ExprExtractionConfig()]


def judge(answer: str, gold: str) -> bool:
    """Whether the answer that a text comes to equals the reference."""
    return judge_and_name(answer, gold)[0]


def judge_and_name(answer: str, gold: str) -> tuple[bool, str]:
    """The verdict, and the answer that was found in one way of writing; empty where none was found."""
    named = named_answer(answer)
    if named is not None and _tidy(named) == _tidy(gold) != "":
        return True, _tidy(named)
    expected = _parsed(gold)
    found = _parsed(named) if named is not None else parse(answer[-_TAIL:], _ANYWHERE, parsing_timeout=None)
    right = bool(verify(list(expected), list(found), timeout_seconds=None))
    text = named if named is not None else next((item for item in found if isinstance(item, str)), "")
    return right, _tidy(text).encode(errors="replace").decode()


def named_answer(text: str) -> str | None:
    r"""What stands in the last \boxed{...}, else after the last ####; None where the text has neither."""
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed
    _, mark, rest = text.rpartition("####")
    if not mark:
        return None
    line = rest.strip().partition("\n")[0]
    number = _LEADING.match(line)
    return "".join(number.groups()) if number else line


def _last_boxed(text: str) -> str | None:
    """The box opened last of all that are closed again; braces are counted, escaped ones are text."""
    open_braces: list[int] = []  # where the content of each box begins, -1 for other braces
    last = (-1, -1)
    for token in _BRACE.finditer(text):
        if token[0] == "}":
            start = open_braces.pop() if open_braces else -1
            last = max(last, (start, token.start())) if start >= 0 else last
        elif token[0] == "{" or token[1]:
            open_braces.append(token.end() if token[1] else -1)
    return text[last[0] : last[1]] if last[0] >= 0 else None


def _tidy(text: str) -> str:
    """One way of writing for what is plain text or a plain number."""
    text = _SEPARATOR.sub("", text.strip().strip("$").strip())
    number = _PLAIN.fullmatch(text)
    if number:
        return f"{number[1]}{number[2].replace(',', '')}{'%' if number[3] else ''}"
    return text.removesuffix(".").strip()


@lru_cache(maxsize=512)  # a group's answers are judged against one reference
def _parsed(text: str) -> tuple[Any, ...]:
    tidy = _tidy(text).replace("%", r"\%").replace(r"\\%", r"\%")
    return tuple(parse(rf"\boxed{{{tidy}}}", _BOXED, parsing_timeout=None))
