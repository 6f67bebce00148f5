"""Which tasks a step plays, and the seed of every episode. All of it is a pure function of the run's seed, so a
resumed run draws exactly what the uninterrupted one would have drawn.

Left out: curricula and source weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.base import Task

REFILL_STREAM = 0xD1A9
"""Keeps the order of spare tasks apart from the order of a pass over all tasks."""


def derive_seed(*parts: int) -> int:
    """A 31-bit seed from integers; different parts give independent streams."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0]) & 0x7FFFFFFF


def tasks_of_step(tasks: Sequence[Task], count: int, step: int, seed: int) -> list[Task]:
    """The ``count`` distinct tasks of ``step``: shuffled passes over all tasks without replacement.

    A pass is cut where fewer than ``count`` tasks remain in it, so that no task comes twice in one step.

    Raises:
        ValueError: fewer tasks than ``count``.
    """
    if len(tasks) < count:
        raise ValueError(f"a step wants {count} distinct tasks and there are only {len(tasks)}")
    steps_per_pass = len(tasks) // count
    order = np.random.default_rng([seed, step // steps_per_pass]).permutation(len(tasks))
    first = (step % steps_per_pass) * count
    return [tasks[int(i)] for i in order[first : first + count]]


def spare_tasks(tasks: Sequence[Task], count: int, step: int, seed: int) -> list[Task]:
    """All tasks but the ``count`` of ``step``, in an order of that step's own: what a group drawn anew may be about."""
    used = {task.id for task in tasks_of_step(tasks, count, step, seed)}
    order = np.random.default_rng([seed, step, REFILL_STREAM]).permutation(len(tasks))
    return [tasks[int(i)] for i in order if tasks[int(i)].id not in used]
