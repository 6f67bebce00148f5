"""The sudoku world: its grids, its splits, and what an answer is worth."""

from __future__ import annotations

import pytest

from rlpost.envs.base import EnvError, Task
from rlpost.envs.sudoku import Sudoku, solutions


def test_there_are_288_grids_and_each_keeps_the_rules() -> None:
    grids = solutions()
    assert grids.shape == (288, 16)
    assert len({tuple(grid) for grid in grids.tolist()}) == 288
    for grid in grids.reshape(-1, 4, 4)[::7]:
        units = [*grid, *grid.T, *(grid[r : r + 2, c : c + 2].ravel() for r in (0, 2) for c in (0, 2))]
        assert all(sorted(unit.tolist()) == [1, 2, 3, 4] for unit in units)


@pytest.mark.parametrize("empty", [4, 10])
def test_grids_have_one_solution_and_no_grid_is_in_both_splits(empty: int) -> None:
    options = {"empty": empty, "train_size": 200, "eval_size": 50}
    train, held_out = (Sudoku.tasks(split, 3, **options) for split in ("train", "eval"))
    assert (len(train), len(held_out)) == (200, 50)
    puzzles = [task.data["puzzle"] for task in [*train, *held_out]]
    assert len(set(puzzles)) == 250
    assert all(puzzle.count("0") == empty for puzzle in puzzles)
    assert held_out == Sudoku.tasks("eval", 4, **options)
    assert train != Sudoku.tasks("train", 4, **options)
    for task in train[:20]:
        given = [place for place in range(16) if task.data["puzzle"][place] != "0"]
        fitting = [g for g in solutions().tolist() if all(str(g[p]) == task.data["puzzle"][p] for p in given)]
        assert ["".join(map(str, grid)) for grid in fitting] == [task.data["solution"]]


@pytest.mark.parametrize("bare", [False, True])
def test_the_reward_is_the_share_of_empty_cells_and_exact_is_apart(bare: bool) -> None:
    (task,) = Sudoku.tasks("train", 0, empty=4, train_size=1, eval_size=1)
    solution, puzzle = task.data["solution"], task.data["puzzle"]
    empty = puzzle.index("0")
    wrong = solution[:empty] + str(int(solution[empty]) % 4 + 1) + solution[empty + 1 :]
    for answer, reward, exact in ((solution, 1.0, 1.0), (wrong, 0.75, 0.0), ("", 0.0, 0.0)):
        env = Sudoku(task, 0, empty=4, bare=bare)
        assert puzzle in env.start()[0]["content"]
        env.step(answer if bare or not answer else f"I think <answer>{answer}</answer>")
        score = env.score()
        assert (score.reward, score.parts["exact"], score.solved) == (reward, exact, bool(exact))


def test_strict_grids_give_nothing_for_an_answer_that_changes_a_given_cell() -> None:
    (task,) = Sudoku.tasks("train", 0, empty=4, train_size=1, eval_size=1)
    solution, given = task.data["solution"], next(n for n, cell in enumerate(task.data["puzzle"]) if cell != "0")
    changed = solution[:given] + str(int(solution[given]) % 4 + 1) + solution[given + 1 :]
    for answer, strict, reward in ((solution, True, 1.0), (changed, True, 0.0), (changed, False, 1.0)):
        env = Sudoku(task, 0, bare=True, strict=strict)
        env.step(answer)
        score = env.score()
        assert (score.reward, score.solved) == (reward, answer == solution)
        assert score.parts["kept"] == float(answer == solution)


def test_demonstrations_are_solved_grids_and_checks_are_others() -> None:
    options = {"empty": 6, "bare": True, "train_size": 60, "eval_size": 10}
    train, checks = (Sudoku.demonstrations(split, 0, 20, **options) for split in ("train", "check"))
    asked = [one.messages[0]["content"] for one in [*train, *checks]]
    assert len(set(asked)) == 40
    for one in train:
        env = Sudoku(
            Task("t", {"puzzle": one.messages[0]["content"], "solution": one.messages[1]["content"]}), 0, bare=True
        )
        env.step(one.messages[1]["content"])
        assert env.score().solved


def test_noisy_demonstrations_are_wrong_in_empty_cells_only() -> None:
    options = {"empty": 8, "bare": True, "train_size": 300, "eval_size": 10}
    noisy, right = (Sudoku.demonstrations("train", 0, 200, noise=noise, **options) for noise in (0.5, 0.0))
    wrong = 0
    for one, other in zip(noisy, right, strict=True):
        puzzle, answer, solution = one.messages[0]["content"], one.messages[1]["content"], other.messages[1]["content"]
        assert all(a == s for g, a, s in zip(puzzle, answer, solution, strict=True) if g != "0")
        wrong += sum(a != s for a, s in zip(answer, solution, strict=True))
    assert abs(wrong / (200 * 8) - 0.5 * 3 / 4) < 0.05


@pytest.mark.parametrize("options", [{"empty": 0}, {"empty": 13}, {"empty": 1, "train_size": 4700}])
def test_grids_that_do_not_exist_are_refused(options: dict) -> None:
    with pytest.raises(EnvError, match="sudoku"):
        Sudoku.tasks("train", 0, **options)
