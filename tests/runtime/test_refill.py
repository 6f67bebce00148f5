"""Dynamic sampling on real actors: groups without spread are drawn anew, within the budget, the same way every time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rlpost.envs.base import Task
from rlpost.faults import RunError
from rlpost.recipe import LoadedRecipe
from rlpost.runfolder import RunFolder
from rlpost.sampling import spare_tasks, tasks_of_step

from .conftest import rows

Make = Callable[..., LoadedRecipe]
Run = Callable[..., RunFolder]

SEED, WIDTH, SIZE = 5, 4, 4  # of the tiny recipe
DULL_ENV = """
from rlpost.envs.base import Env, Observation, Score, Task


class Dull(Env):
    blocking = False

    @classmethod
    def tasks(cls, split, seed, dull=2, count=16):
        return [Task(id=f"{split}-{n}", data={"n": n, "split": split}) for n in range(count)]

    def __init__(self, task, seed, dull=2, count=16):
        super().__init__(task, seed)
        self.dull = task.data["n"] % dull == 0

    def start(self):
        return [{"role": "user", "content": f"task {self.task.data['n']}"}]

    def step(self, text):
        return Observation("", done=True)

    def score(self):
        return Score(0.25 if self.dull else self.seed % 9973 / 9973)
"""
TASKS = [Task(id=f"train-{n}", data={"n": n}) for n in range(16)]


@pytest.fixture
def recipe(tmp_path: Path, small_recipe: Make) -> Make:
    """The tiny recipe in a world where every second task gives all its episodes the same reward."""
    (tmp_path / "worlds.py").write_text(DULL_ENV)

    def make(refill: int, *overrides: str) -> LoadedRecipe:
        rule = f"algorithm={{name: grpo, advantage: {{refill: {refill}}}}}"
        return small_recipe("env.name=worlds.py:Dull", "rollout.max_turns=1", rule, *overrides)

    return make


def expected(step: int, budget: int) -> tuple[int, int]:
    """(groups drawn anew, groups without spread at the end), played through by hand."""
    dull = [task.data["n"] % 2 == 0 for task in tasks_of_step(TASKS, WIDTH, step, SEED)]
    spare = spare_tasks(TASKS, WIDTH, step, SEED)[:budget]
    drawn = 0
    while any(dull) and drawn < len(spare):
        replaced = min(sum(dull), len(spare) - drawn)
        fresh = [task.data["n"] % 2 == 0 for task in spare[drawn : drawn + replaced]]
        dull = [True] * (sum(dull) - replaced) + fresh
        drawn += replaced
    return drawn, sum(dull)


def test_groups_without_spread_are_drawn_anew_within_the_budget(recipe: Make, run: Run) -> None:
    found = rows(run(recipe(3, "steps=5")))
    assert [(row["groups/redrawn"], row["groups/no_signal"]) for row in found] == [expected(n, 3) for n in range(5)]
    assert any(0 < row["groups/redrawn"] < 3 for row in found)  # enough was found before the budget ended
    assert any(row["groups/redrawn"] == 3 and row["groups/no_signal"] for row in found)  # and it ended first
    for row in found:
        assert row["episodes"] == (WIDTH + row["groups/redrawn"]) * SIZE
        assert row["select/samples"] == WIDTH * SIZE  # the learner is given as much as ever
        assert row["select/zero_variance_groups"] == row["groups/no_signal"] / WIDTH


@pytest.mark.slow
def test_what_is_drawn_anew_is_the_same_every_time(recipe: Make, run: Run) -> None:
    overrides = ("steps=3", "deterministic=true", "rollout.workers=2")
    first, again = (rows(run(recipe(6, *overrides), name), times=False) for name in ("first", "again"))
    assert first == again
    assert any(row["groups/redrawn"] for row in first)


@pytest.mark.slow
def test_with_lag_groups_are_drawn_anew_by_the_newest_weights(recipe: Make, run: Run) -> None:
    found = rows(run(recipe(12, "steps=4", "lag=1")))
    assert [(row["groups/redrawn"], row["groups/no_signal"]) for row in found] == [expected(n, 12) for n in range(4)]
    assert all(row["lag"] <= 1 and row["groups/no_signal"] == 0 for row in found)


@pytest.mark.slow
def test_rewards_all_equal_spend_the_budget_and_the_step_is_skipped(
    recipe: Make, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = run(recipe(2, "steps=2", "env.options={dull: 1}"))
    for row in rows(folder):
        assert row["groups/redrawn"] == 2
        assert row["skipped"] == 1.0
        assert row["groups/no_signal"] == WIDTH
        assert row["loss"] == row["tokens/packed"] == row["updates"] == 0.0
    said = capfd.readouterr().out
    assert "step 1: the advantages of all 16 trajectories are 0; the weights did not change" in said or (
        "step 1: none of 16 trajectories was worth learning from; the weights did not change" in said
    )


def test_more_groups_than_there_are_tasks_are_refused_before_anything_starts(recipe: Make, run: Run) -> None:
    with pytest.raises(RunError, match=r"4 distinct tasks a step and algorithm.advantage.refill for up to 13 further"):
        run(recipe(13, "steps=1"))


def test_spare_tasks_are_all_others_in_an_order_of_the_step() -> None:
    first = [task.id for task in spare_tasks(TASKS, WIDTH, 0, SEED)]
    used = {task.id for task in tasks_of_step(TASKS, WIDTH, 0, SEED)}
    assert len(first) == 12
    assert not used & set(first)
    assert first == [task.id for task in spare_tasks(TASKS, WIDTH, 0, SEED)]
    assert first != [task.id for task in spare_tasks(TASKS, WIDTH, 4, SEED)]  # another pass, another order
