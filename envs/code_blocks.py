"""The Python in a turn's Markdown: what stands in its fenced code blocks, and nothing from those of other languages.

Written for what models write: text before a fence, code on a fence's own line, fences that are indented, of tildes, or
never closed, and fences inside the code's own texts. Left out: code without a fence (the reward for code reads
answers, which may be bare; a turn's words are not code).
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field

_FENCE = re.compile(r"(`{3,}|~{3,})(.*)$")
_LANGUAGE = re.compile(r"\{?\.?([A-Za-z][\w+#-]*)\}?$")
_MOST_PASSED = 50
_PYTHON = frozenset({"python", "py", "python3", "py3", "ipython", "pycon"})


def code_blocks(text: str) -> list[str]:
    """The blocks of code in order, without empty ones. A block marked as Python counts; one of no language counts too
    where no block is marked, or where it can be read as Python (what a turn expects to be printed often cannot)."""
    blocks = [block for block in _blocks(text.split("\n")) if block.kind != "other" and block.code.strip()]
    marked = any(block.kind == "python" for block in blocks)
    return [block.code for block in blocks if block.kind == "python" or not marked or _problem(block.code) is None]


@dataclass(slots=True)
class _Block:
    """A block under way: its fence, and ``python``, ``bare`` (no language) or ``other``."""

    fence: str
    kind: str
    lines: list[str] = field(default_factory=list)
    passed: int = 0
    """Fences that were taken for a part of its own texts."""

    @property
    def code(self) -> str:
        """Its text, without an indentation that all lines share."""
        return textwrap.dedent("\n".join(self.lines)).strip("\n")


def _blocks(lines: list[str]) -> Iterator[_Block]:
    block: _Block | None = None
    for line in (line.rstrip("\r") for line in lines):
        if block is None:
            block = _opened(line)
            if block is not None and _closes_on_its_line(block):
                yield block
                block = None
            continue
        before, closes, after = _closing(line, block)
        if not closes:
            block.lines.append(line)
            continue
        if before.strip():
            block.lines.append(before)
        yield block
        block = _opened(block.fence + after) if _LANGUAGE.fullmatch(after.strip()) else None
    if block is not None:
        yield block


def _opened(line: str) -> _Block | None:
    """The block that a line opens; what follows the language on that line is its first code."""
    match = _FENCE.search(line)
    if match is None:
        return None
    fence, rest = match[1], match[2].strip()
    word, _, more = rest.partition(" ")
    language = _LANGUAGE.fullmatch(word)
    if not rest:
        return _Block(fence, "bare")
    if language is not None and language[1].lower() in _PYTHON:
        return _Block(fence, "python", [more] if more.strip() else [])
    if language is not None and not more.startswith("="):
        return _Block(fence, "other", [more])
    return _Block(fence, "bare", [rest])


def _closes_on_its_line(block: _Block) -> bool:
    """Whether the fence that opened a block is followed by its end on the same line, which is taken off."""
    for place, line in enumerate(block.lines):
        if block.fence in line:
            block.lines[place] = line[: line.index(block.fence)]
            return True
    return False


def _closing(line: str, block: _Block) -> tuple[str, bool, str]:
    """(code before the closing fence, whether there is one, what follows it) of a line inside a block."""
    stripped = line.strip()
    if stripped.startswith(block.fence):
        before, after = "", stripped.lstrip(block.fence[0])
    elif stripped.endswith(block.fence):
        before, after = line.rstrip().rstrip(block.fence[0]), ""
    else:
        return "", False, ""
    problem = None if block.kind == "other" else _problem("\n".join([*block.lines, before]))
    inside_text = problem is not None and problem.startswith("unterminated triple-quoted")
    block.passed += inside_text
    return before, not inside_text or block.passed > _MOST_PASSED, after


def _problem(code: str) -> str | None:
    """Why a text is no Python, or None."""
    try:
        ast.parse(textwrap.dedent(code))
    except SyntaxError as error:
        return error.msg
    except (ValueError, RecursionError, MemoryError) as error:
        return str(error)
    return None
