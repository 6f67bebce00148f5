"""Weights of data sources in reinforcement learning: how tasks are drawn by them, and every way they can be wrong."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from rlpost.envs.base import EnvError, Task
from rlpost.recipe import LoadedRecipe
from rlpost.sampling import spare_tasks, tasks_of_step
from rlpost.tasks import load_source_weights

TASKS = [Task(id=f"{source}-{n}", data={}, source=source) for source in ("a", "b", "c") for n in range(40)]


def test_tasks_are_drawn_by_weight() -> None:
    weights = {"a": 0.7, "b": 0.3, "c": 0.0}
    counts: Counter[str] = Counter()
    for step in range(300):
        drawn = tasks_of_step(TASKS, 10, step, 3, weights)
        assert len({task.id for task in drawn}) == 10
        counts.update(task.source for task in drawn)
    assert counts["c"] == 0
    assert abs(counts["a"] - 2100) < 3 * (3000 * 0.7 * 0.3) ** 0.5
    every = Counter(task.id for step in range(300) for task in tasks_of_step(TASKS, 10, step, 3, weights))
    assert len(every) == 80  # every task of a and b


def test_draws_are_a_function_of_seed_and_step() -> None:
    weights = {"a": 0.5, "b": 0.25, "c": 0.25}
    first = [task.id for task in tasks_of_step(TASKS, 8, 5, 1, weights)]
    assert first == [task.id for task in tasks_of_step(TASKS, 8, 5, 1, weights)]
    assert first != [task.id for task in tasks_of_step(TASKS, 8, 6, 1, weights)]
    assert first != [task.id for task in tasks_of_step(TASKS, 8, 5, 2, weights)]


def test_a_source_with_too_few_tasks_is_filled_up_by_the_others() -> None:
    few = [task for task in TASKS if task.source != "a"] + TASKS[:2]
    drawn = tasks_of_step(few, 12, 0, 0, {"a": 0.98, "b": 0.02, "c": 0.0})
    assert len({task.id for task in drawn}) == 12
    assert Counter(task.source for task in drawn)["a"] == 2


def test_spare_tasks_are_of_weighted_sources_only() -> None:
    weights = {"a": 0.5, "b": 0.5, "c": 0.0}
    used = {task.id for task in tasks_of_step(TASKS, 10, 4, 0, weights)}
    spare = spare_tasks(TASKS, 10, 4, 0, weights)
    assert len(spare) == 70
    assert not used & {task.id for task in spare}
    assert {task.source for task in spare} == {"a", "b"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weights": {"a": 1.0, "b": 0.0}}, "no weight for the source 'c'"),
        ({"weights": {"a": 0.5, "b": 0.2, "c": 0.2, "d": 0.1}}, "no task of the source 'd'"),
        ({"weights": {"a": 0.5, "b": -0.5, "c": 1.0}}, "must be 0 or more"),
        ({"weights": {"a": 0.0, "b": 0.0, "c": 0.0}}, "not all 0"),
        ({"weights": {"a": float("nan"), "b": 0.5, "c": 0.5}}, "must be 0 or more"),
        ({"weights": {"a": "much"}}, "holds no weights by source"),
        ([1, 2], "holds no weights by source"),
        (None, "holds no weights by source"),
    ],
)
def test_bad_weights(content: object, message: str, tmp_path: Path, small_recipe: Callable[..., LoadedRecipe]) -> None:
    if content is not None:
        (tmp_path / "weights.json").write_text(json.dumps(content))
    with pytest.raises(EnvError, match=message):
        load_source_weights(small_recipe("data.source_weights=weights.json"), TASKS)


def test_good_weights(tmp_path: Path, small_recipe: Callable[..., LoadedRecipe]) -> None:
    weights = {"a": 0.5, "b": 0.5, "c": 0.0, "retired": 0.0}
    for content in ({"weights": weights, "steps": []}, weights):
        (tmp_path / "weights.json").write_text(json.dumps(content))
        assert load_source_weights(small_recipe("data.source_weights=weights.json"), TASKS) == weights
    assert load_source_weights(small_recipe(), TASKS) is None
    with pytest.raises(EnvError, match="only 80 are of a source with a weight above 0"):
        load_source_weights(small_recipe("data.source_weights=weights.json", "batch.tasks=81"), TASKS)
