"""Which tasks a step plays, and the seed of every episode. All of it is a pure function of the run's seed, so a
resumed run draws exactly what the uninterrupted one would have drawn.

Left out: curricula.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rlpost.envs.base import Task

REFILL_STREAM, WEIGHTED_STREAM = 0xD1A9, 0x5CA1
"""Keep the order of spare tasks, and draws by source weight, apart from the order of a pass over all tasks."""

SourceWeights = Mapping[str, float]
"""How much each data source counts, by its name; they sum to 1."""


EVAL_STREAM = 0xE7A1
"""Keeps evaluation seeds apart from training seeds."""


def derive_seed(*parts: int) -> int:
    """A 31-bit seed from integers; different parts give independent streams."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0]) & 0x7FFFFFFF


def tasks_of_step(
    tasks: Sequence[Task], count: int, step: int, seed: int, weights: SourceWeights | None = None
) -> list[Task]:
    """The ``count`` distinct tasks of ``step``: shuffled passes over all tasks without replacement.

    A pass is cut where fewer than ``count`` tasks remain in it, so that no task comes twice in one step. With
    ``weights`` every step draws anew: its tasks' sources by weight, and of each source its tasks at random.

    Raises:
        ValueError: fewer tasks than ``count``.
    """
    if len(tasks) < count:
        raise ValueError(f"a step wants {count} distinct tasks and there are only {len(tasks)}")
    if weights is not None:
        return _weighted(tasks, count, np.random.default_rng([seed, step, WEIGHTED_STREAM]), weights)
    steps_per_pass = len(tasks) // count
    order = np.random.default_rng([seed, step // steps_per_pass]).permutation(len(tasks))
    first = (step % steps_per_pass) * count
    return [tasks[int(i)] for i in order[first : first + count]]


def _weighted(tasks: Sequence[Task], count: int, rng: np.random.Generator, weights: SourceWeights) -> list[Task]:
    """As many tasks of each source as a multinomial draw says; where a source has too few, others fill up."""
    order = [tasks[int(index)] for index in rng.permutation(len(tasks)) if weights[tasks[int(index)].source] > 0]
    shares = np.array(list(weights.values())) / sum(weights.values())
    left = dict(zip(weights, rng.multinomial(count, shares).tolist(), strict=True))
    chosen, others = list[Task](), list[Task]()
    for task in order:
        (chosen if left[task.source] > 0 else others).append(task)
        left[task.source] -= 1
    return (chosen + others)[:count]


def spare_tasks(
    tasks: Sequence[Task], count: int, step: int, seed: int, weights: SourceWeights | None = None
) -> list[Task]:
    """All tasks but the ``count`` of ``step``, in an order of that step's own: what a group drawn anew may be about.
    None of them is of a source whose weight is 0."""
    used = {task.id for task in tasks_of_step(tasks, count, step, seed, weights)}
    used |= {task.id for task in tasks if weights is not None and weights[task.source] == 0}
    order = np.random.default_rng([seed, step, REFILL_STREAM]).permutation(len(tasks))
    return [tasks[int(i)] for i in order if tasks[int(i)].id not in used]
