"""Countdown with tasks of its own: reach a target from a few given numbers, each used exactly once.

Tasks need no package and no file, and no set of numbers of a held-out task occurs in training. Only a share of the
demonstrations is right; the others go on after the answer and use a number twice, and so does, most often, a model
warmed up on both: to stop in time, and to be right more often, is left to reinforcement learning. Left out: brackets
and division in tasks (an answer of the policy may have them; the judge is reward/countdown.py).
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from rlpost.envs.base import Demonstration, EnvError, Message, Score, Task
from rlpost.envs.one_answer import OneAnswer
from rlpost.reward.countdown import evaluate, score
from rlpost.reward.messages import nearest

HELD_OUT = {"eval": 0, "check": 1}
"""Of ``PARTS`` parts of all sets of numbers, the one of each of these splits; "train" has the others."""
PARTS = 8
HIGHEST_TARGET = 999


@dataclass(frozen=True, slots=True)
class Puzzles:
    """The recipe's ``env.options``: which tasks there are, and how they are put.

    Attributes:
        numbers: how many numbers are given; each is 1 to ``highest``.
        operators: of ``+-*``, what targets are made with.
        size: tasks of a split, at most; there may be fewer distinct ones.
        terse: ask in a few bytes and take the whole answer for the expression, as suits a byte-level model; else a
            sentence, and what stands in the last ``<answer>...</answer>``.
        expert_share: of the demonstrations, this share (0 to 1) is right.

    Raises:
        EnvError: there are no such tasks.
    """

    numbers: int = 3
    highest: int = 9
    operators: str = "+-"
    size: int = 1000
    terse: bool = False
    expert_share: float = 0.3

    def __post_init__(self) -> None:
        if self.numbers < 2 or self.highest < 2 or not self.operators or not set(self.operators) <= set("+-*"):
            raise EnvError(
                f"env.options: no Countdown task has numbers={self.numbers}, highest={self.highest}, "
                f"operators={self.operators!r}; give at least 2 numbers up to at least 2, and some of '+-*'"
            )
        if not 0 <= self.expert_share <= 1:
            raise EnvError(f"env.options.expert_share is {self.expert_share}; it must be within 0 and 1")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """From keyword arguments.

        Raises:
            EnvError: an option that there is not; or see the class.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(options.keys() - known):
            raise EnvError(f"Countdown takes no option '{unknown[0]}'{nearest(unknown[0], known)}", unknown[0])
        return cls(**options)

    def careless(self, expression: str, given: Sequence[int]) -> str:
        """A wrong answer: one that was right, and then the first number once more."""
        return f"{expression}{self.operators[0]}{given[0]}"

    def draw(self, split: str, rng: random.Random) -> Iterator[tuple[list[int], int, str]]:
        """Endlessly: given numbers, a target from 0 to HIGHEST_TARGET, and an expression that reaches it, with the
        numbers in the order given.

        Raises:
            EnvError: no such split.
        """
        if split not in ("train", *HELD_OUT):
            raise EnvError(f"Countdown has no split '{split}'; it has train, {', '.join(HELD_OUT)}")
        while True:
            given = [rng.randint(1, self.highest) for _ in range(self.numbers)]
            part = zlib.crc32(str(sorted(given)).encode()) % PARTS
            if next((name for name, own in HELD_OUT.items() if own == part), "train") != split:
                continue
            expression = str(given[0]) + "".join(f"{rng.choice(self.operators)}{number}" for number in given[1:])
            target, _ = evaluate(expression)
            if 0 <= target <= HIGHEST_TARGET:
                yield given, int(target), expression

    def question(self, given: Sequence[int], target: int) -> Message:
        """What the policy is asked."""
        if self.terse:
            return {"role": "user", "content": f"{' '.join(map(str, given))}={target}"}
        words = (
            f"Using each of the numbers {', '.join(map(str, given))} exactly once, write an expression that equals "
            f"{target}. Put it between <answer> and </answer>."
        )
        return {"role": "user", "content": words}

    def answer(self, expression: str) -> Message:
        """How it should answer."""
        return {"role": "assistant", "content": expression if self.terse else f"<answer>{expression}</answer>"}


class Countdown(OneAnswer):
    """One task, answered once. The reward is 1 where the answer reaches the target; else 0.

    Args:
        task: one of ``tasks``.
        seed: not used.
        options: see Puzzles.
    """

    blocking: ClassVar[bool] = False  # some ten microseconds an answer: no thread is worth it

    def __init__(self, task: Task, seed: int, **options: Any) -> None:
        super().__init__(task, seed)
        self._puzzles = Puzzles.of(options)

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """See Puzzles."""
        Puzzles.of(options)

    @classmethod
    def tasks(cls, split: str, seed: int, **options: Any) -> Sequence[Task]:
        """Distinct tasks; those of "eval" do not depend on ``seed``.

        Raises:
            EnvError: see Puzzles.
        """
        puzzles = Puzzles.of(options)
        drawn = puzzles.draw(split, random.Random(f"countdown-{split}-{seed if split == 'train' else 0}"))
        found: dict[str, Task] = {}
        for _ in range(20 * puzzles.size):
            given, target, _ = next(drawn)
            name = f"{'-'.join(map(str, given))}={target}"
            found.setdefault(name, Task(name, {"numbers": given, "target": target}, source="countdown"))
            if len(found) == puzzles.size:
                break
        return list(found.values())

    @classmethod
    def demonstrations(cls, split: str, seed: int, count: int, **options: Any) -> Sequence[Demonstration]:
        """Answered tasks. "train": a share reaches the target, with the numbers in the order given; the others are
        careless. "check": all reach it, with sets of numbers that no other split has.

        Raises:
            EnvError: see Puzzles.
        """
        puzzles = Puzzles.of(options)
        rng = random.Random(f"countdown-demonstrations-{split}-{seed}")
        drawn = puzzles.draw(split, rng)
        shown = []
        for _ in range(count):
            given, target, expression = next(drawn)
            if split != "check" and rng.random() >= puzzles.expert_share:
                expression = puzzles.careless(expression, given)
            shown.append(Demonstration([puzzles.question(given, target), puzzles.answer(expression)]))
        return shown

    def start(self) -> Sequence[Message]:
        """The question."""
        return [self._puzzles.question(self.task.data["numbers"], self.task.data["target"])]

    def score(self) -> Score:
        """1 or 0; the parts are those of reward/countdown.py."""
        answer = f"<answer>{self.answer}</answer>" if self._puzzles.terse else self.answer
        found = score(answer, self.task.data["numbers"], self.task.data["target"])
        return Score(float(found.solved), found.parts)
