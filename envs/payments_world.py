"""The payments world itself: two apps, a bank, and the tasks that are set in it.

The answers to actions are in the table of payments.py. Left out: episodes and scores (payments.py), and scripted
conversations (payments_demos.py).
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from itertools import permutations
from typing import Any

from rlpost.envs.base import EnvError, Task

MAX_TURNS = 5
"""The world closes after this many actions; solving a task takes three, or four after a look in vain."""

NAME_LETTERS = "bfghjkmqvwxz"  # no letter of the commands: a copied name has one place to come from
ACCOUNTS = ["".join(letters) for letters in permutations("ABCDEFGHIJKLMNOP", 2)]
EVAL_NAMES, CHECK_NAMES = 256, 64

_LOOK_UP = re.compile(r"([cl]) ([a-z]+)")
_PAY = re.compile(r"p ([A-Za-z]+) ([0-9]{1,4})", re.ASCII)


class World:
    """The state of one episode.

    Args:
        task: one of ``draw_task``.

    Attributes:
        found: accounts that a look-up has shown.
        payments: (account, amount) of every payment made, in order.
        turns: actions taken.
        said_done: whether the last action was ``d``.
    """

    def __init__(self, task: Task) -> None:
        self._apps = {"c": task.data["contacts"], "l": task.data["ledger"]}
        self.found: set[str] = set()
        self.payments: list[tuple[str, int]] = []
        self.turns = 0
        self.said_done = False

    @property
    def closed(self) -> bool:
        """Whether the episode is over."""
        return self.said_done or self.turns >= MAX_TURNS

    def act(self, text: str) -> str:
        """Do what ``text`` says, and answer."""
        self.turns += 1
        self.said_done = text == "d"
        if self.said_done:
            return ""
        if match := _LOOK_UP.fullmatch(text):
            return self._look_up(match[1], match[2])
        if match := _PAY.fullmatch(text):
            return self._pay(match[1], int(match[2]))
        return "?"

    def _look_up(self, app: str, name: str) -> str:
        account = self._apps[app].get(name)
        if account is None:
            return "-"
        self.found.add(account)
        return str(account)

    def _pay(self, account: str, amount: int) -> str:
        """The bank knows only accounts that were looked up: nobody is paid by luck."""
        if account not in self.found:
            return "no"
        self.payments.append((account, amount))
        return "ok"


def names_of(split: str) -> list[str]:
    """The names that tasks of a split are about: "train", "eval" or "check"; disjoint, and the same for every seed.

    Raises:
        EnvError: no such split.
    """
    names = ["".join(letters) for letters in permutations(NAME_LETTERS, 3)]
    random.Random("payments-names").shuffle(names)
    held_out = EVAL_NAMES + CHECK_NAMES
    parts = {"train": names[held_out:], "eval": names[:EVAL_NAMES], "check": names[EVAL_NAMES:held_out]}
    if split not in parts:
        raise EnvError(f"Payments has no split '{split}'; it has {', '.join(parts)}")
    return parts[split]


def draw_task(name: str, names: Sequence[str], rng: random.Random) -> Task:
    """A task about ``name``: its account is in one of the apps, beside somebody else's (of ``names``) in each."""
    others = [other for other in rng.sample(names, 3) if other != name]
    accounts = rng.sample(ACCOUNTS, 3)
    apps = [{others[0]: accounts[0]}, {others[1]: accounts[1]}]
    apps[rng.randrange(2)][name] = accounts[2]
    data: dict[str, Any] = {"name": name, "amount": rng.randint(1, 9), "contacts": apps[0], "ledger": apps[1]}
    return Task(id=f"{name}-{data['amount']}", data=data, difficulty=1, source="payments")
