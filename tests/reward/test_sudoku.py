"""Sudoku: golden rewards by hand."""

from __future__ import annotations

from typing import Any

import pytest

from rlpost.reward import sudoku
from rlpost.reward.score import RewardError

# 1 2 | 3 4     . 2 | 3 4
# 3 4 | 1 2     3 . | 1 2
# ----+----     ----+----
# 2 1 | 4 3     2 1 | . 3
# 4 3 | 2 1     4 3 | 2 .
SOLUTION = "1234341221434321"
PUZZLE = "0234301221034320"


@pytest.mark.parametrize(
    ("answer", "cells", "exact"),
    [
        (SOLUTION, 1.0, 1.0),
        ("1 2 3 4\n3 4 1 2\n2 1 4 3\n4 3 2 1", 1.0, 1.0),
        ("1234|3412|2143|4321", 1.0, 1.0),
        ("1234341221434322", 0.75, 0.0),  # the last cell wrong
        ("2234311221334322", 0.0, 0.0),  # all four wrong
        (PUZZLE, 0.0, 0.0),  # left as it was
        ("1", 0.25, 0.0),  # padded with zeros
        ("", 0.0, 0.0),
        ("none", 0.0, 0.0),
        (SOLUTION + "999", 1.0, 1.0),  # cut to 16
        ("1334341221434321", 1.0, 0.0),  # a given cell changed: every empty one right, yet not solved
    ],
)
def test_share_of_cells(answer: str, cells: float, exact: float) -> None:
    score = sudoku.score(f"<answer>{answer}</answer>", PUZZLE, SOLUTION)
    assert score.reward == cells
    assert {**score.parts, "kept": 1.0} == {"cells": cells, "exact": exact, "answered": 1.0, "kept": 1.0}
    assert score.solved is bool(exact)


def test_no_answer() -> None:
    score = sudoku.score(SOLUTION, PUZZLE, SOLUTION)
    assert (score.reward, score.parts["answered"], score.solved) == (0.0, 0.0, False)


@pytest.mark.parametrize(
    "puzzle",
    [
        PUZZLE,
        ".234 3.12 21.3 432.",
        "_2343_1221_3432_",
        [[0, 2, 3, 4], [3, 0, 1, 2], [2, 1, 0, 3], [4, 3, 2, 0]],
        [int(digit) for digit in PUZZLE],
    ],
)
def test_ways_to_write_a_grid(puzzle: Any) -> None:
    task = {"puzzle": puzzle, "solution": SOLUTION}
    assert sudoku.reward(f"<answer>{SOLUTION}</answer>", task).reward == 1.0


@pytest.mark.parametrize(
    ("puzzle", "solution", "says"),
    [
        ("0", SOLUTION, "puzzle must be 16 digits"),
        (PUZZLE, SOLUTION[:-1], "solution must be 16 digits"),
        (PUZZLE, "5" + SOLUTION[1:], "solution must be 16 digits"),
        (None, SOLUTION, "puzzle must be 16 digits"),
        (PUZZLE, "1" * 16, "breaks the rules"),
        (PUZZLE, "1234341243212143", "contradicts its puzzle"),
        (SOLUTION, SOLUTION, "no empty cell"),
    ],
)
def test_bad_tasks_are_errors(puzzle: Any, solution: Any, says: str) -> None:
    with pytest.raises(RewardError, match=says):
        sudoku.score("<answer>1</answer>", puzzle, solution)
