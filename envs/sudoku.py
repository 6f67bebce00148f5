"""4x4 sudoku: fill in the empty cells of a grid that has one solution.

The reward is the share of empty cells that are right; ``reward/exact`` is the share of grids solved, given cells
included. Left out: other sizes, and hints for the model's reasoning (the answer may stand in ``<answer>`` after any
text).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from rlpost.envs.base import Demonstration, EnvError, Message, Score, Task
from rlpost.envs.one_answer import OneAnswer
from rlpost.reward import sudoku

EVAL_SEED = 1_000_003
"""Held-out grids are the same whatever the run's seed, so that runs compare."""
RULES = (
    "Fill in this 4x4 sudoku, written row by row with 0 for an empty cell, so that each row, column and 2x2 box has "
    "the digits 1 to 4 once: {puzzle}. Put the 16 digits of the solution into <answer></answer>."
)


class Sudoku(OneAnswer):
    """One grid, answered once.

    Args:
        task: one of ``tasks``.
        seed: not used.
        empty: cells left empty, 1..12.
        bare: the prompt is the 16 digits of the grid and nothing else, and so is the answer (for tiny models).
        strict: an answer that changes a given cell is worth nothing. Without it nothing in the reward keeps a policy
            from forgetting to copy those, and grids solved can fall while the reward rises.
        noise: of the empty cells of a demonstration, this share (0 to 1) gets a digit at random.
        train_size, eval_size: grids of each split; no grid is in both.
    """

    blocking: ClassVar[bool] = False

    def __init__(
        self,
        task: Task,
        seed: int,
        empty: int = 8,
        bare: bool = False,
        strict: bool = False,
        noise: float = 0.0,
        train_size: int = 4000,
        eval_size: int = 256,
    ) -> None:
        super().__init__(task, seed)
        self._bare = bare
        self._strict = strict

    @classmethod
    def tasks(
        cls,
        split: str,
        seed: int,
        empty: int = 8,
        bare: bool = False,
        train_size: int = 4000,
        eval_size: int = 256,
        **options: Any,
    ) -> Sequence[Task]:
        """Distinct grids with one solution each; those of "eval" do not depend on ``seed`` and are not in "train"."""
        held_out = _draw(EVAL_SEED, eval_size, empty, frozenset())
        grids = held_out
        if split == "train":
            grids = _draw(seed, train_size, empty, frozenset(puzzle for puzzle, _ in held_out))
        return [
            Task(f"sudoku-{split}-{number}", {"puzzle": puzzle, "solution": solution})
            for number, (puzzle, solution) in enumerate(grids)
        ]

    @classmethod
    def demonstrations(
        cls,
        split: str,
        seed: int,
        count: int,
        empty: int = 8,
        bare: bool = False,
        noise: float = 0.0,
        **options: Any,
    ) -> Sequence[Demonstration]:
        """Grids of the train split with their solutions; those for "check" are others, and right."""
        train_size = int(options.get("train_size", 4000))
        tasks = cls.tasks("train", seed, empty, bare, train_size, int(options.get("eval_size", 256)))
        chosen = tasks[:count] if split == "train" else tasks[-count:]
        rng = np.random.default_rng([seed, 1])
        asked = [_prompt(task.data["puzzle"], bare) for task in chosen]
        said = [_answer(_noisy(task, noise if split == "train" else 0.0, rng), bare) for task in chosen]
        return [
            Demonstration([Message(role="user", content=question), Message(role="assistant", content=answer)])
            for question, answer in zip(asked, said, strict=True)
        ]

    def start(self) -> Sequence[Message]:
        """The grid."""
        return [Message(role="user", content=_prompt(self.task.data["puzzle"], self._bare))]

    def score(self) -> Score:
        """See reward/sudoku.py."""
        answer = f"<answer>{self.answer}</answer>" if self._bare else self.answer
        score = sudoku.reward(answer, self.task.data)
        return Score(0.0, score.parts, score.success) if self._strict and not score.parts["kept"] else score


def _noisy(task: Task, noise: float, rng: np.random.Generator) -> str:
    """The solution, with some of the cells that were empty at random."""
    cells = zip(task.data["puzzle"], task.data["solution"], strict=True)
    return "".join(
        str(rng.integers(1, 5)) if given == "0" and rng.random() < noise else right for given, right in cells
    )


def _prompt(puzzle: str, bare: bool) -> str:
    return puzzle if bare else RULES.format(puzzle=puzzle)


def _answer(solution: str, bare: bool) -> str:
    return solution if bare else f"<answer>{solution}</answer>"


@lru_cache(maxsize=1)
def solutions() -> np.ndarray[Any, np.dtype[np.int64]]:
    """(288, 16) all filled grids."""
    rows = list(itertools.permutations((1, 2, 3, 4)))
    bands = [a + b for a, b in itertools.product(rows, rows) if len({*a[:2], *b[:2]}) == len({*a[2:], *b[2:]}) == 4]
    grids = (upper + lower for upper, lower in itertools.product(bands, bands))
    return np.array([grid for grid in grids if all(len(set(grid[column::4])) == 4 for column in range(4))])


@lru_cache(maxsize=4)
def _draw(seed: int, count: int, empty: int, taken: frozenset[str]) -> list[tuple[str, str]]:
    """``count`` distinct (puzzle, solution), none of them in ``taken``.

    Raises:
        EnvError: so many cells cannot be empty, or there are too few such grids.
    """
    if not 1 <= empty <= 12:
        raise EnvError(f"env.options.empty: a 4x4 sudoku with one solution has 1 to 12 empty cells, not {empty}")
    rng, every = np.random.default_rng([seed, empty]), solutions()
    drawn: dict[str, str] = {}
    for _ in range(20 * count + 1000):
        if len(drawn) == count:
            return list(drawn.items())
        solution = every[rng.integers(len(every))]
        given = np.ones(16, dtype=bool)
        given[rng.permutation(16)[:empty]] = False
        puzzle = "".join(map(str, np.where(given, solution, 0)))
        if puzzle not in taken and (every[:, given] == solution[given]).all(axis=1).sum() == 1:
            drawn[puzzle] = "".join(map(str, solution))
    raise EnvError(
        f"only {len(drawn)} of {count} distinct 4x4 sudokus with {empty} empty cells were found; lower "
        "env.options.train_size or eval_size"
    )
