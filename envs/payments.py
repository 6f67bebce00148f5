"""Payments: a small world of two apps in which an account has to be found before it is paid, exactly once.

A task names somebody and an amount: ``pay bgh 7``. The account stands in one of two apps, contacts or ledger, and the
bank pays only accounts that were looked up in this episode. Actions and answers are a few bytes each, so that a
byte-level model of less than a million parameters learns the world in about a minute on a CPU:

    c NAME        look in contacts    the account, or "-"
    l NAME        look in ledger      the account, or "-"
    p ID AMOUNT   pay                 "ok", or "no" for an account that was not looked up
    d             done                ends the episode

Anything else is answered with "?", and the fifth action is the last. Left out: balances, tasks of several payments,
and reward for half the work. The world's rules are in payments_world.py, the scripts of the warm start in
payments_demos.py.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from rlpost.envs.base import Demonstration, Env, Message, Observation, Score, Task
from rlpost.envs.payments_demos import demonstrate
from rlpost.envs.payments_world import World, draw_task, names_of


class Payments(Env):
    """One episode. The reward is 1 for ``d`` after exactly one payment, the right one; else 0.

    Args:
        task: one of ``Payments.tasks``.
        seed: not used; there is no chance in this world.
        expert_share: of the demonstrations, this share (0 to 1) solve their task; the others act at random.
    """

    blocking: ClassVar[bool] = False  # a few microseconds an action: no thread is worth it

    def __init__(self, task: Task, seed: int, expert_share: float = 0.25) -> None:
        super().__init__(task, seed)
        self._world = World(task)

    @classmethod
    def tasks(cls, split: str, seed: int, **options: Any) -> Sequence[Task]:
        """One task a name: 1,000 "train", 256 "eval". Their names are disjoint whatever the seed, which draws accounts
        and amounts.

        Raises:
            EnvError: no such split.
        """
        names = names_of(split)
        rng = random.Random(f"payments-tasks-{split}-{seed}")
        return [draw_task(name, names, rng) for name in names]

    @classmethod
    def demonstrations(
        cls, split: str, seed: int, count: int, expert_share: float = 0.25, **options: Any
    ) -> Sequence[Demonstration]:
        """Scripted conversations, "train" or "check"; see ``rlpost.envs.payments_demos.demonstrate``."""
        return demonstrate(split, seed, count, expert_share)

    def start(self) -> Sequence[Message]:
        """The task, in three words."""
        return [{"role": "user", "content": f"pay {self.task.data['name']} {self.task.data['amount']}"}]

    def step(self, text: str) -> Observation:
        """Act; see the table at the top of this file."""
        answer = self._world.act(text)
        return Observation(answer, done=self._world.closed)

    def score(self) -> Score:
        """Reward 0 or 1."""
        data = self.task.data
        account = data["contacts"].get(data["name"]) or data["ledger"][data["name"]]
        return Score(float(self._world.said_done and self._world.payments == [(account, data["amount"])]))

    def metrics(self) -> Mapping[str, float]:
        """``accounts``: how many were found; ``payments``: how many were made."""
        return {"accounts": float(len(self._world.found)), "payments": float(len(self._world.payments))}
