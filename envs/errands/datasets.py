"""Which tasks there are: ids, splits, and from an id to the world it names.

As in AppWorld a task id is ``SCENARIO_VARIANT``, with seven hexadecimal digits and 1 to 3. Splits share no scenario;
``train_variants`` is more tasks of the kinds in ``train``, about other people and things. Left out: the apps and
scenarios themselves.
"""

from __future__ import annotations

import functools
import hashlib
import random
from dataclasses import dataclass

from rlpost.envs.errands.scenarios import SCENARIOS, Plan
from rlpost.envs.errands.seed import Seed, fill

VARIANTS = 3
SPLITS = {
    "train": (
        "pay_contact", "count_liked", "add_line", "delete_playlist", "approve_from", "playlist_of_genre",
        "total_sent", "remind_debtors", "favourite_artist_playlist",
    ),
    "dev": ("like_by_title", "request_from_note", "update_numbers"),
    "test_normal": ("text_contact", "unlike_before", "split_bill", "return_duplicates"),
}  # fmt: skip
"""Which kinds of scenario each split is made of; the kinds of ``test_challenge`` are those of difficulty 3 in test."""
USES = {"train": 5, "dev": 5, "test_normal": 8}
"""How many scenarios of each kind."""
HELD_OUT_USES = 4


class UnknownTask(ValueError):
    """No such task, split or difficulty; the message says what there is."""


@dataclass(frozen=True, slots=True)
class TaskId:
    """One task: the ``variant`` (1 to 3) of the ``use``-th scenario of a kind."""

    kind: str
    use: int
    variant: int

    @property
    def scenario(self) -> str:
        """Seven hexadecimal digits."""
        return hashlib.blake2b(f"{self.kind}/{self.use}".encode()).hexdigest()[:7]

    def __str__(self) -> str:
        return f"{self.scenario}_{self.variant}"

    @property
    def difficulty(self) -> int:
        """1 to 3."""
        return SCENARIOS[self.kind].difficulty

    def build(self) -> tuple[Seed, Plan]:
        """The world as the solver finds it, and the plan that it is judged by; the same whenever it is built."""
        draw = random.Random(f"errands {self.kind} {self.use} {self.variant}")
        seed = fill(draw, phrase=self.use)
        plan = SCENARIOS[self.kind].build(seed)
        seed.state.instruction = plan.instruction
        return seed, plan


@functools.cache
def splits() -> dict[str, tuple[TaskId, ...]]:
    """All splits and their tasks."""
    found = {name: _tasks(kinds, range(USES[name])) for name, kinds in SPLITS.items()}
    hard = [kind for kind in SPLITS["test_normal"] if SCENARIOS[kind].difficulty == 3]
    found["test_challenge"] = _tasks(hard, range(USES["test_normal"], 2 * USES["test_normal"]))
    found["train_variants"] = _tasks(SPLITS["train"], range(USES["train"], USES["train"] + HELD_OUT_USES))
    return found


@functools.cache
def _by_id() -> dict[str, TaskId]:
    return {str(task): task for tasks in splits().values() for task in tasks}


def load_task_ids(dataset_name: str, difficulty: int | None = None) -> list[str]:
    """The ids of a split's tasks, of one difficulty where it is given.

    Raises:
        UnknownTask: no such split.
    """
    if dataset_name not in splits():
        raise UnknownTask(f"there is no split '{dataset_name}'; there are: {', '.join(splits())}")
    return [str(task) for task in splits()[dataset_name] if difficulty in (None, task.difficulty)]


def task_of(task_id: str) -> TaskId:
    """The task of an id.

    Raises:
        UnknownTask: no such task.
    """
    if task_id not in _by_id():
        raise UnknownTask(f"there is no task '{task_id}' in this world")
    return _by_id()[task_id]


def _tasks(kinds: tuple[str, ...] | list[str], uses: range) -> tuple[TaskId, ...]:
    return tuple(TaskId(kind, use, variant) for kind in kinds for use in uses for variant in range(1, VARIANTS + 1))
