"""4x4 sudoku: the share of originally empty cells that the answer fills as the solution does.

The answer is the digits of the last ``<answer>``, cut or padded with zeros to 16; a cell that was given does not
count. The part ``exact`` is 1 only for the whole grid: the share alone says little of solved puzzles. Left out: other
sizes, and puzzles with more than one solution.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlpost.reward.answers import column, last_answer
from rlpost.reward.score import RewardError, Score

_CELLS = 16


def score(completion: str, puzzle: Any, solution: Any) -> Score:
    """Judge one completion.

    Args:
        completion: the model's whole text.
        puzzle, solution: 16 digits in reading order, as text or (nested) lists; 0, ``.`` or ``_`` is an empty cell.

    ``parts``: ``cells`` (the share of empty cells that are right), ``exact`` (1 where the whole grid is the solution),
    ``kept`` (1 where no given cell was changed) and ``answered`` (1 where there is an ``<answer>``).

    Raises:
        RewardError: not 16 cells, a solution that is none or contradicts the puzzle, or a puzzle without empty cells.
    """
    given, wanted = _cells(puzzle, "puzzle"), _cells(solution, "solution")
    _check(given, wanted)
    answer = last_answer(completion)
    digits = "".join(character for character in answer or "" if character in "0123456789")
    filled = digits[:_CELLS].ljust(_CELLS, "0")
    empty = [place for place in range(_CELLS) if given[place] == "0"]
    share = sum(filled[place] == wanted[place] for place in empty) / len(empty)
    exact = filled == wanted
    kept = all(given[place] in ("0", filled[place]) for place in range(_CELLS))
    parts = {"cells": share, "exact": float(exact), "kept": float(kept), "answered": float(answer is not None)}
    return Score(share, parts, success=exact, answer=filled if answer is not None else "")


def reward(completion: str, task: Mapping[str, Any]) -> Score:
    """As ``score``, with the columns ``puzzle`` and ``solution``."""
    return score(completion, column(task, "puzzle"), column(task, "solution"))


def _cells(grid: Any, name: str) -> str:
    """16 digits, 0 for an empty cell."""
    if isinstance(grid, str):
        cells = "".join(grid.split()).replace(".", "0").replace("_", "0")
    elif isinstance(grid, list | tuple):
        cells = "".join(str(cell) for row in grid for cell in (row if isinstance(row, list | tuple) else [row]))
    else:
        cells = ""
    if len(cells) != _CELLS or not set(cells) <= set("01234"):
        raise RewardError(f"the sudoku's {name} must be 16 digits from 0 to 4, not {grid!r}")
    return cells


def _check(given: str, wanted: str) -> None:
    rows = [wanted[place : place + 4] for place in range(0, _CELLS, 4)]
    columns = [wanted[place::4] for place in range(4)]
    boxes = [rows[r][c : c + 2] + rows[r + 1][c : c + 2] for r in (0, 2) for c in (0, 2)]
    if any(sorted(unit) != list("1234") for unit in (*rows, *columns, *boxes)):
        raise RewardError(f"the sudoku's solution {wanted} breaks the rules")
    if any(g not in ("0", w) for g, w in zip(given, wanted, strict=True)):
        raise RewardError(f"the sudoku's solution {wanted} contradicts its puzzle {given}")
    if "0" not in given:
        raise RewardError(f"the sudoku's puzzle {given} has no empty cell")
