"""Episodes of the compact errands world, for models of about a million parameters.

Scenarios, variants, tests and rewards are those of the large world; see mini_world.py for the commands. Left out:
Python (there is none to run, so there is no sandbox).
"""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from rlpost.envs.appworld_reward import Baseline, no_op_excluded
from rlpost.envs.base import Demonstration, Env, EnvError, Message, Observation, Score, Task
from rlpost.envs.errands.mini_world import KINDS, MAX_TURNS, VARIANTS, MiniTask, MiniWorld, build

USES = {"train": 40, "eval": 14}
"""Scenarios of each kind."""


class MiniErrands(Env):
    """One episode. The reward is the share of the task's tests, 0 where the task was not completed.

    Args:
        task: one of ``tasks``.
        seed: not used.
        expert_share: of the demonstrations, this share solves its task; in the others a careless clerk acts.
        difficulties: only tasks of these are trained on.
    """

    blocking: ClassVar[bool] = False  # an action takes a tenth of a millisecond

    def __init__(
        self, task: Task, seed: int, expert_share: float = 0.1, difficulties: Sequence[int] | None = None
    ) -> None:
        super().__init__(task, seed)
        data = task.data
        self._world = MiniWorld(build(data["kind"], data["use"], data["variant"], data["split"]))
        self._turns = 0

    @classmethod
    def tasks(cls, split: str, seed: int, difficulties: Sequence[int] | None = None, **options: Any) -> Sequence[Task]:
        """Three variants of each scenario: 720 "train" tasks, 252 "eval" ones about names that no other task has.

        Raises:
            EnvError: no such split.
        """
        if split not in USES:
            raise EnvError(f"MiniErrands has no split '{split}'; it has {', '.join(USES)}")
        ids = [(kind, use, v) for kind in KINDS for use in range(USES[split]) for v in range(1, VARIANTS + 1)]
        found = []
        for kind, use, variant in ids:
            data = {"kind": kind, "use": use, "variant": variant, "split": split}
            difficulty = DIFFICULTY[kind]
            scenario = f"{split}-{kind}-{use}"
            found.append(Task(f"{scenario}_{variant}", data, scenario, difficulty, "mini-errands"))
        if split == "train" and difficulties is not None:
            found = [task for task in found if task.difficulty in difficulties]
        return found

    @classmethod
    def demonstrations(
        cls, split: str, seed: int, count: int, expert_share: float = 0.1, **options: Any
    ) -> Sequence[Demonstration]:
        """Scripted conversations: "train" of experts and careless clerks; "check" of experts, about other names, up to
        the turn before the last, which copies something."""
        if split not in ("train", "check"):
            raise EnvError(f"MiniErrands has demonstrations 'train' and 'check', not '{split}'")
        draw = random.Random(f"mini-demonstrations-{split}-{seed}")
        found = []
        for number in range(count):
            task = build(draw.choice(list(KINDS)), number, draw.randrange(2**31), split)
            expert = split == "check" or draw.random() < expert_share
            found.append(Demonstration(_play(task, draw, expert, whole=split == "train")))
        return found

    def start(self) -> Sequence[Message]:
        """The task, in two or three words."""
        return [{"role": "user", "content": self._world.task.instruction}]

    def step(self, text: str) -> Observation:
        """A command; see mini_world.py."""
        self._turns += 1
        answer = self._world.act(text)
        return Observation(answer, done=self._world.completed or self._turns >= MAX_TURNS)

    def score(self) -> Score:
        """Share of the tests, and success."""
        verdict = self._world.evaluate().to_dict()
        if not self._world.completed:
            return Score(0.0, success=False)
        return Score(no_op_excluded(verdict, _baseline(**self.task.data), True), success=bool(verdict["success"]))

    def metrics(self) -> Mapping[str, float]:
        """Refused commands, as a share of the turns; 1 where the task was never completed."""
        refused = self._world.refused / max(1, self._turns)
        return {"execution_errors_a_turn": refused, "unfinished": float(not self._world.completed)}

    def close(self) -> None:
        """Drop the database."""
        self._world.close()


@functools.cache
def _baseline(kind: str, use: int, variant: int, split: str) -> Baseline:
    world = MiniWorld(build(kind, use, variant, split))
    idle = world.evaluate().to_dict()
    world.act("d")
    baseline = Baseline.of(idle, world.evaluate().to_dict())
    world.close()
    return baseline


DIFFICULTY = {kind: build(kind, 0, 0, "train").difficulty for kind in KINDS}
RIGHT, TOO_SOON = 0.25, 0.45
"""How often a careless clerk does what comes next, and how often it says that the task is done."""
LOOK_UPS, ACTS = ("c {0}", "s {0}", "n {0}", "r {0}"), ("p {0} 5", "m {1} hi", "l {0}", "a {0}")
"""What else a careless clerk does: looks something up with the task's name, or does something with the last answer."""


def _play(task: MiniTask, draw: random.Random, expert: bool, whole: bool) -> list[Message]:
    """One conversation, to its end or (not ``whole``) to the last command that copies something out of an answer."""
    world = MiniWorld(task)
    messages: list[Message] = [{"role": "user", "content": task.instruction}]
    copies = max(place for place, step in enumerate(task.solution) if "{" in step)
    place, answer = 0, "-"
    for turn in range(MAX_TURNS):
        right = expert or draw.random() < RIGHT
        words = [*answer.split(), *answer.split()]
        text = task.solution[place].format(*words) if right else _careless(draw, task, words)
        messages.append(Message(role="assistant", content=text))
        answer = world.act(text)
        if world.completed or turn + 1 == MAX_TURNS or (not whole and place == copies):
            break
        place += 1 if right else -("{" in task.solution[place])  # looked up again after a detour
        messages.append(Message(role="user", content=answer))
    world.close()
    return messages


def _careless(draw: random.Random, task: MiniTask, words: Sequence[str]) -> str:
    """What the clerk does who does not do what comes next; ``words``: the last answer, twice."""
    if draw.random() < TOO_SOON / (1 - RIGHT):
        return "d"
    if words[0] in ("-", "?", "no", "ok"):
        return draw.choice(LOOK_UPS).format(task.instruction.split()[1])
    return draw.choice(ACTS).format(*words)
