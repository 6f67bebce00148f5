"""The program in a completion: the last block of code that defines what is asked for and compiles.

Blocks are what stands between fences of backticks or tildes, closed or not, and runs of lines that read as Python where
there is no fence. Left out: languages other than Python, and mending of broken code.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Sequence

_FENCE = re.compile(r"(?P<before>.*?)(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[\w+#.-]*)[^`~]*$")
_START = re.compile(r"(?:def|class|import|from|async def|@|if __name__)\b|@|\w+(?:: [\w\[\], |]+)? = ")
_PYTHON = ("python", "python3", "py", "py3", "")
_THOUGHT = "</think>"


def extract_code(completion: str, names: Sequence[str] = (), head: str = "") -> str:
    """The program in a completion.

    Args:
        completion: the model's text; what it thinks (up to the last ``</think>``) is no answer.
        names: what the program must define, one of them at least; where none, any code will do.
        head: the text that the completion may go on with, such as a function's head; code that compiles after it counts
            as well.

    Returns:
        the last block that defines a name and compiles; else the last that goes on with ``head``; else the last that
        compiles and is marked as Python; else the last one, or the text as it is.
    """
    text = completion.replace("\r\n", "\n").lstrip("\ufeff")
    if _THOUGHT in text:
        text = text.rpartition(_THOUGHT)[2]
    elif text.lstrip().startswith("<think>"):
        return ""
    blocks = [*_blocks(text)] or [("", text)]
    if not any(defines(block, names) for _, block in blocks):
        blocks += [("", run) for run in _unfenced(text)]
    ranked = [(_rank(block, language, names, head), place) for place, (language, block) in enumerate(blocks)]
    rank, place = max(ranked)
    return blocks[place][1] if rank > 0 or _FENCE.search(text.split("\n", 1)[0]) or len(blocks) > 1 else text


def defines(text: str, names: Sequence[str]) -> bool:
    """Whether a text defines one of these names at its outermost level and compiles; any code does, where no name is
    given."""
    tree = parsed(text)
    return tree is not None and bool(_defined(tree) & set(names) if names else tree.body)


def parsed(text: str) -> ast.Module | None:
    """The syntax tree of a text that compiles; None where it does not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
            compile(tree, "<program>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return tree


def _defined(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found


def _rank(block: str, language: str, names: Sequence[str], head: str) -> int:
    if defines(block, names):
        return 4 if names or language in _PYTHON[:-1] else 3
    if head and parsed(head + block) is not None and block.strip():
        return 3
    if language in _PYTHON and parsed(block) is not None and block.strip():
        return 2 if language else 1
    return 1 if language in _PYTHON[:-1] else 0


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """(language, code) of every fenced block, in order."""
    lines = text.split("\n")
    marks = {place: mark for place, line in enumerate(lines) if (mark := _FENCE.match(line))}
    first = next(iter(marks), None)
    if first is not None and not marks[first]["language"] and parsed(before := "\n".join(lines[:first]) + "\n"):
        yield "", before  # the opening fence was part of the prompt
    place = 0
    while place < len(lines):
        mark = marks.get(place)
        if mark is None:
            place += 1
            continue
        closing = _closing(lines, marks, place)
        last = marks[closing]["before"] if closing in marks else ""
        kept = [*lines[place + 1 : closing], last] if last.strip() else lines[place + 1 : closing]
        block = "\n".join(kept).rstrip("\n") + "\n"
        yield mark["language"].lower(), _outdented(block, mark["before"])
        place = closing + 1


def _closing(lines: list[str], marks: dict[int, re.Match[str]], opening: int) -> int:
    """The line that ends a block: of the fences after its start the first that leaves code that compiles (others may
    stand in a docstring), else the first."""
    kind = marks[opening]["fence"]
    after = [place for place, mark in marks.items() if place > opening and mark["fence"].startswith(kind)]
    after = [place for place in after if not marks[place]["language"]]
    for place in after[:20]:
        code = _outdented("\n".join([*lines[opening + 1 : place], marks[place]["before"]]), marks[opening]["before"])
        if parsed(code) is not None and code.strip():
            return place
    return after[0] if after else len(lines)


def _outdented(code: str, before: str) -> str:
    """The lines of a block without the spaces that stand before its fence."""
    width = len(before) if not before.strip() else 0
    return "\n".join(line[min(width, len(line) - len(line.lstrip())) :] for line in code.split("\n"))


def _unfenced(text: str) -> Iterator[str]:
    """Runs of lines that read as Python, from each line that starts a statement to where it stops compiling."""
    lines = text.split("\n")
    place = 0
    while place < len(lines):
        if not _START.match(lines[place]):
            place += 1
            continue
        run = _compiling(lines[place:])
        if run:
            yield "\n".join(run) + "\n"
        place += max(1, len(run))


def _compiling(lines: list[str]) -> list[str]:
    """The longest beginning that compiles, cut where Python finds fault, down to nothing."""
    for _ in range(50):
        try:
            ast.parse("\n".join(lines))
            return lines
        except SyntaxError as error:
            end = min((error.lineno or 1) - 1, len(lines) - 1)
            lines = lines[:end]
        except (ValueError, RecursionError, MemoryError):
            return []
        if not lines:
            return []
    return []
