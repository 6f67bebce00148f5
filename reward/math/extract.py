r"""Where the final answer stands in a text, decided by its marks alone and never by what the reference is.

In what follows the last ``</think>`` (nothing, where thinking began and did not end), the first of these that is there:

1. the last closed ``\boxed{...}``; boxes joined by nothing but commas, ``and`` or ``or`` are one list;
2. the last ``<answer>...</answer>``;
3. the last line that starts with ``####`` and is an answer, not a heading (``#### 42. Add them``, ``#### Check``);
4. what follows the last ``answer is``, ``Answer:``, ``the correct option is``;
5. what is last of: bold type, a piece of LaTeX, a run of numbers (``41 or 42`` is one run, and an answer of two).

Left out: what the answer means (``values``).
"""

# ruff: noqa: RUF001 - signs that look alike are told apart here on purpose

from __future__ import annotations

import re

_TAIL = 4000  # characters at the end that the fifth rule looks at
_OPTION = re.compile(r"\b(?:[Oo]ption|[Cc]hoice)\s+\(?([A-Z])\)?\s+is\s+(?:the\s+)?(?:correct|right)")
_TITLE = re.compile(r"^[ \t]*#{1,6}(?!#)[ \t]*(.*)$", re.MULTILINE)
_NEGATED = re.compile(r"(?:\bnot|n't|\bnever)\s+(?:equal\s+to\s+)?\W*$", re.IGNORECASE)
_THINK = r"think|thinking|thought|reasoning"
_THOUGHT = re.compile(rf"</(?:{_THINK})>|\[/THINK\]|<\|end_of_thought\|>|◁/think▷", re.IGNORECASE)
_THINKING = re.compile(rf"<(?:{_THINK})>|\[THINK\]|<\|begin_of_thought\|>|◁think▷", re.IGNORECASE)
_BRACE = re.compile(r"\\?\\?(?:framebox|fbox|boxed)\s*\{|\\\\|\\[{}]|[{}]")
_BARE_BOX = re.compile(r"\\boxed\s+([^\s{}$\\.,;]+)")
_JOIN = re.compile(
    r"(?:\n\s*(?:[-•]|\(?(?:\d|[ivx]{1,3}|[a-d])[.)])\s|[\s$,;&*]"
    r"|\\\(|\\\)|\\\[|\\\]|\\\\|\\,|\\;|\\ |\\quad|\\qquad|\\?text\s*\{\s*(?:and|or|,)*\s*\}"
    r"|\b(?:and|or|as well as|also)\b"
    r"|\\(?:land|lor|wedge|vee)|[a-zA-Z](?:_\{?\w+\}?)?\s*=(?=\s*$))*"
)
_TAGGED = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL | re.IGNORECASE)
_HASHES = re.compile(r"^[ \t>*_]*####(?!#)[ \t]*(.*)$", re.MULTILINE)
_LABEL = re.compile(r"^[\s*_:=]*(?:(?:the\s+)?(?:final\s+)?answer(?:\s+is)?)?[\s*_:=]*(?=\S)", re.IGNORECASE)
_HEADING = re.compile(
    r"^\**\s*(?:(?:step|case|part|method|check|solution|note|question|problem|example)\b|\(?[\da-zA-Z]{1,2}[.):]\s+\S*[a-zA-Z]{2})",
    re.IGNORECASE,
)
_PHRASE = re.compile(
    r"(?:\b(?:answers?|(?:correct|right|best)\s+(?:option|choice|solution|value))\b(?:\s+(?:to|for|of)\s[^.\n:]{0,80}?)?[*_\s\"'`]*"
    r"(?::|=|\b(?:is|are|was|equals|would\s+be|will\s+be|must\s+be|should\s+be|comes\s+(?:out\s+)?to)\b\s*:?)"
    r"|\bfinal\s+answers?\b[*_ ]*(?=\n))[*_ ]*",
    re.IGNORECASE,
)
_FILLER = re.compile(
    r"^(?:therefore|thus|simply|just|approximately|about|exactly|indeed|then|hence|clearly|given by|equal to"
    r"|option(?=\s+\(?[A-Z]\b)|choice(?=\s+\(?[A-Z]\b)|:|,|\s)+",
    re.IGNORECASE,
)
_END = re.compile(
    r"\.(?=\s|$)(?<!sq\.)(?<!in\.\s)|!(?=\s+[A-Z]|\s*$)|\n|,\s+(?:it|this|that|we)\b|,?\s+(?:because|since|as\s+(?:we|the|it|this)|which|so|where|but|given\s+that|when|after|,?\s*not)\b|;\s+[a-z]"
)
_PAREN = re.compile(
    r"\s+\((?![^()]*\b(?:or|not|maybe|perhaps|possibly|else)\b)(?:(?=[^()]*[a-zA-Z]{3})[^()\d]*|[^()]*=[^()]*)\)\s*\.?$"
)
_DISPLAY = re.compile(r"\\\[(.*?)\\\]|\$\$(.*?)\$\$", re.DOTALL)
_LATEX = re.compile(
    r"\\\((.+?)\\\)|\\\[(.+?)\\\]|\$\$(.+?)\$\$|(?<![\\$\w])\$(?![\s$])([^$\n]+?)(?<![\s\\])\$(?!\d)", re.DOTALL
)
_BOLD = re.compile(r"\*\*([^*\n]+?)\*\*|(?<![\w_])__([^_\n]+?)__|`([^`\n]+?)`")
_PROSE = re.compile(r"(?<!\\)\b(?!(?:and|or|sin|cos|tan|log|sqrt|frac|text|pi)\b)[a-zA-Z]{2,}\s+[a-zA-Z]{2,}")
_NUMBER = (
    r"(?:(?<![\w.)\]])[-+−])?(?:\\?[$€£¥₹]\s?)?"
    r"(?:\d+(?:,\d+)*(?:\.\d+)?[½¼¾⅓⅔⅕⅛]?|\.\d+|[½¼¾⅓⅔⅕⅛])"
    r"(?:[eE][-+]?\d+)?(?:\s?\\?%|[a-zA-Z]+(?:\^\d)?)?"
)
_RUN = re.compile(
    rf"{_NUMBER}(?:\s*(?:[-+−–*/×·÷=^:,;]|\band\b|\bor\b|\bto\b)+\s*{_NUMBER}|\s+{_NUMBER})*"
    r"(?:\s+(?:hundred|thousand|million|billion|trillion|percent|per cent)\b)?"
)


def final_answer(text: str, mode: str = "any") -> str | None:
    """What the text gives as its answer, as it is written there; None where it gives none.

    Args:
        text: all that the model wrote.
        mode: ``any``; ``boxed``: the first rule alone; ``marked``: the third rule alone.
    """
    said = after_thinking(text)
    if said is None:
        return None
    if mode != "marked":
        found = boxed(said)
        if found is not None or mode == "boxed":
            return found
    found = marked(said, strict=mode == "marked")
    if found is not None or mode == "marked" or _open_box(said):
        return found
    return _unmarked(said[-_TAIL:])


def reference_answer(text: str) -> str:
    """What a reference comes to: the answer, or a solution that ends in a box, ``####``, a tag or a phrase."""
    found = boxed(text)
    if found is not None:
        return found
    tagged = _TAGGED.findall(text)
    if tagged:
        return str(tagged[-1])
    _, mark, rest = text.rpartition("####")
    if mark and rest.strip():
        return rest.strip().strip("*").partition("\n")[0]
    found = _after_phrase(text)
    return text if found is None else found


def after_thinking(text: str) -> str | None:
    """What was written after thinking; None where it had begun and not ended."""
    ends = list(_THOUGHT.finditer(text))
    said = text[ends[-1].end() :] if ends else text
    return None if _THINKING.search(said) else said


def boxed(text: str) -> str | None:
    r"""The last closed box, and those before it that are joined to it; an empty one is one only where it is alone."""
    text = text.replace("\x08oxed", r"\boxed").replace("\x0cbox", r"\fbox")
    boxes = _boxes(text)
    full = [box for box in boxes if text[box[1] : box[2]].strip()]
    if not full:
        bare = _BARE_BOX.findall(text)
        return bare[-1] if bare else ("" if boxes else None)
    found = [full[-1]]
    for box in reversed(full[:-1]):
        if box[3] > found[0][0]:
            continue  # inside of it
        if not _JOIN.fullmatch(text, box[3], found[0][0]) or found[0][0] - box[3] > 60:
            break
        found.insert(0, box)
    contents = list(dict.fromkeys(text[start:end].strip() for _, start, end, _ in found))
    return ", ".join(contents)


def _boxes(text: str) -> list[tuple[int, int, int, int]]:
    """(begin, begin of content, end of content, end) of each closed box, innermost of nested ones, in order."""
    opened: list[tuple[int, int] | None] = []
    found: list[tuple[int, int, int, int]] = []
    for token in _BRACE.finditer(text):
        if token[0] == "}":
            begin = opened.pop() if opened else None
            if begin is not None and not (found and found[-1][0] > begin[0]):
                found.append((*begin, token.start(), token.end()))
        elif token[0] == "{":
            opened.append(None)
        elif token[0].endswith("{") and token[0] != r"\{":
            opened.append((token.start(), token.end()))
    return sorted(found)


def _open_box(text: str) -> bool:
    return bool(re.search(r"\\boxed\s*\{", text))


def marked(text: str, strict: bool = False) -> str | None:
    """The last ``<answer>`` tag, else the last line after ``####`` that is an answer; ``strict``: only such a line."""
    if not strict:
        tagged = [tag for tag in _TAGGED.findall(text) if tag.strip()]
        if tagged:
            inside = str(tagged[-1]).strip()
            phrase = _after_phrase(inside)
            return inside if phrase is None else phrase
    for mark in reversed(list(_HASHES.finditer(text))):
        line, rest = mark[1].strip().strip("*").strip(), text[mark.end() :].strip()
        if not line:
            line, _, rest = rest.partition("\n")
        line = _PAREN.sub("", _LABEL.sub("", line, count=1)).strip()
        if line and not _is_heading(line, rest.strip()):
            return line
    return None


def _is_heading(line: str, rest: str) -> bool:
    """Whether the line heads what follows: a numbered or named step, or words with more text below."""
    if (
        re.fullmatch(r"(?:the\s+)?(?:final\s+)?answer\W*", line, re.IGNORECASE)
        or _HEADING.match(line)
        or line.endswith(":")
    ):
        return True
    return (
        bool(rest)
        and not re.search(r"\d|\\|[^a-zA-Z]$|^[a-zA-Z]$|=", line)
        and not re.fullmatch(r"\(?[A-Z]\)?\.?", line)
    )


def _unmarked(text: str) -> str | None:
    phrase = _after_phrase(text)
    if phrase is not None:
        return phrase
    option = _OPTION.findall(text)
    if option:
        return str(option[-1])
    text = _TITLE.sub(lambda m: "" if _is_heading(m[1], "") else m[1], text)
    if re.fullmatch(r"\s*(?:[a-zA-Z]{2,20}|\(?[A-Z]\)?)\s*\.?\s*", text):
        return text
    return _last_value(text)


def _after_phrase(text: str) -> str | None:
    """What follows the last "answer is" up to the end of its sentence."""
    phrases = list(_PHRASE.finditer(text))
    if not phrases:
        return None
    rest = _DISPLAY.sub(lambda m: "$" + " ".join((m[1] or m[2] or "").split()) + "$", text[phrases[-1].end() :])
    rest = _FILLER.sub("", rest.lstrip(" \n*_:>\"'"))
    end = _END.search(rest)
    said = (rest[: end.start()] if end else rest).strip()
    said = _PAREN.sub("", said).strip()
    if said.count("**") % 2:
        said = said.removesuffix("**") if said.endswith("**") else said.replace("**", "")
    if not said:
        return None
    if (
        _PROSE.search(re.sub(r"\\text\s*\{[^{}]*\}", "", said))
        and re.search(r"\d", said)
        and not re.search(r"\b(?:not|n't)\b", said)
    ):
        runs = _values(said)
        return runs[0][2] if len(runs) == 1 else said
    return said


def _last_value(text: str) -> str | None:
    """The last bold type, LaTeX or run of numbers."""
    found = _values(text)
    if not found:
        return None
    begin, _, value = found[-1]
    if _NEGATED.search(text, max(0, begin - 30), begin):
        return None
    line = text[text.rfind("\n", 0, begin) + 1 :]
    for start, end, bold in reversed(found):  # bold type in the last line speaks louder than what is beside it
        if text[start:end].startswith("**") and text[start:].count("\n") == 0 and len(line) > 0:
            return bold
    return value


def _values(text: str) -> list[tuple[int, int, str]]:
    """(begin, end, what it says) of all values in a text, in order; LaTeX joined by ``or`` to the next is one list."""
    taken: list[tuple[int, int, str]] = []
    for pattern in (_LATEX, _BOLD):
        for match in pattern.finditer(text):
            inside = next(group for group in match.groups() if group)
            free = not any(start < match.end() and match.start() < end for start, end, _ in taken)
            if free and _may_be_value(inside, pattern is _LATEX):
                taken.append((match.start(), match.end(), inside.strip()))
    for match in _RUN.finditer(text):
        if not any(start < match.end() and match.start() < end for start, end, _ in taken):
            taken.append((match.start(), match.end(), match[0].rstrip(" ,;:")))
    taken.sort()
    joined: list[tuple[int, int, str]] = []
    for start, end, value in taken:
        if joined and _JOIN.fullmatch(text, joined[-1][1], start) and start - joined[-1][1] <= 12:
            joined[-1] = (joined[-1][0], end, f"{joined[-1][2]}, {value}")
        else:
            joined.append((start, end, value))
    return joined


def _may_be_value(text: str, latex: bool) -> bool:
    if _PROSE.search(re.sub(r"\\text\s*\{[^{}]*\}", "", text)):
        return False
    return latex or bool(
        re.search(r"\d|\\", text) and not re.fullmatch(r"\s*\(?\d{1,2}[.):]\s*", text) and not _HEADING.match(text)
    )
