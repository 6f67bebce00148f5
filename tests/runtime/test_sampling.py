"""Task order and seeds are pure functions of the run's seed."""

from __future__ import annotations

from collections import Counter

import pytest

from rlpost.envs.base import Task
from rlpost.sampling import derive_seed, tasks_of_step

TASKS = [Task(id=str(n), data={}) for n in range(10)]


def ids(count: int, step: int, seed: int = 0) -> list[str]:
    """Task ids of one step."""
    return [task.id for task in tasks_of_step(TASKS, count, step, seed)]


def test_a_pass_sees_each_task_at_most_once_and_a_step_never_twice() -> None:
    seen = Counter(task for step in range(3) for task in ids(3, step))
    assert set(seen.values()) == {1}
    assert len(seen) == 9
    for step in range(200):
        assert len(set(ids(7, step))) == 7


def test_all_tasks_are_drawn_alike_in_the_long_run() -> None:
    seen = Counter(task for step in range(3000) for task in ids(3, step))
    assert len(seen) == 10
    assert all(abs(count - 900) < 60 for count in seen.values())  # 4 standard deviations of 1000 draws at 0.9


def test_step_is_independent_of_those_before_it() -> None:
    assert ids(4, 57, seed=3) == ids(4, 57, seed=3)
    assert ids(4, 57, seed=3) != ids(4, 57, seed=4)


def test_too_few_tasks() -> None:
    with pytest.raises(ValueError, match="wants 11 distinct tasks and there are only 10"):
        ids(11, 0)


def test_seeds_differ_and_stay_in_31_bits() -> None:
    seeds = {derive_seed(0, step, place, index) for step in range(20) for place in range(20) for index in range(20)}
    assert len(seeds) > 7990
    assert all(0 <= seed < 2**31 for seed in seeds)
