"""Countdown with tasks of its own: reach a target from a few given numbers, each used exactly once.

Tasks need no package and no file, and no set of numbers of a held-out task occurs in training. The demonstrations teach
the form of an answer and to use the given numbers, but only a share of them reaches the target: to reach it is left to
reinforcement learning. Left out: brackets and division in tasks (an answer of the policy may have them; the judge is
reward/countdown.py).
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from envs.base import Demonstration, EnvError, Message, Score, Task
from envs.one_answer import OneAnswer
from reward.countdown import evaluate, score

HELD_OUT = {"eval": 0, "check": 1}
"""Of ``PARTS`` parts of all sets of numbers, the one of each of these splits; "train" has the others."""
PARTS = 8
HIGHEST_TARGET = 999


@dataclass(frozen=True, slots=True)
class Puzzles:
    """The tasks there are: ``numbers`` whole numbers of 1 to ``highest``, made into targets with ``operators``.

    Raises:
        EnvError: there are no such tasks.
    """

    numbers: int = 3
    highest: int = 9
    operators: str = "+-"

    def __post_init__(self) -> None:
        if self.numbers < 2 or self.highest < 2 or not self.operators or not set(self.operators) <= set("+-*"):
            raise EnvError(
                f"env.options: no Countdown task has numbers={self.numbers}, highest={self.highest}, "
                f"operators={self.operators!r}; give at least 2 numbers up to at least 2, and some of '+-*'"
            )

    def guess(self, given: Sequence[int], rng: random.Random) -> str:
        """An expression that uses the given numbers, in any order and with any operators."""
        first, *others = rng.sample(list(given), len(given))
        return str(first) + "".join(f"{rng.choice(self.operators)}{number}" for number in others)

    def draw(self, split: str, rng: random.Random) -> Iterator[tuple[list[int], int, str]]:
        """Endlessly: given numbers, a target from 0 to HIGHEST_TARGET, and an expression that reaches it.

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
            expression = self.guess(given, rng)
            target, _ = evaluate(expression)
            if 0 <= target <= HIGHEST_TARGET:
                yield given, int(target), expression


class Countdown(OneAnswer):
    """One task, answered once. The reward is 1 where the answer reaches the target; else 0.

    Args:
        task: one of ``tasks``.
        seed: not used.
        terse: ask in a few bytes and take the whole answer for the expression, as suits a byte-level model; else a
            sentence, and what stands in the last ``<answer>...</answer>``.
        options: see ``tasks`` and ``demonstrations``.
    """

    blocking: ClassVar[bool] = False  # some ten microseconds an answer: no thread is worth it

    def __init__(self, task: Task, seed: int, terse: bool = False, **options: Any) -> None:
        super().__init__(task, seed)
        self._terse = terse

    @classmethod
    def tasks(
        cls,
        split: str,
        seed: int,
        size: int = 1000,
        numbers: int = 3,
        highest: int = 9,
        operators: str = "+-",
        **options: Any,
    ) -> Sequence[Task]:
        """At most ``size`` distinct tasks (fewer where there are hardly as many); "eval" does not depend on ``seed``.

        Raises:
            EnvError: see Puzzles.
        """
        rng = random.Random(f"countdown-{split}-{seed if split == 'train' else 0}")
        puzzles = Puzzles(numbers, highest, operators).draw(split, rng)
        found: dict[str, Task] = {}
        for _ in range(20 * size):
            given, target, _ = next(puzzles)
            name = f"{'-'.join(map(str, given))}={target}"
            found.setdefault(name, Task(name, {"numbers": given, "target": target}, source="countdown"))
            if len(found) == size:
                break
        return list(found.values())

    @classmethod
    def demonstrations(
        cls,
        split: str,
        seed: int,
        count: int,
        terse: bool = False,
        expert_share: float = 0.5,
        numbers: int = 3,
        highest: int = 9,
        operators: str = "+-",
        **options: Any,
    ) -> Sequence[Demonstration]:
        """Answered tasks. "train": a share reaches the target, the others use the numbers at random. "check": all
        reach it, with sets of numbers that no other split has.

        Raises:
            EnvError: see Puzzles; or ``expert_share`` is not within 0 to 1.
        """
        if not 0 <= expert_share <= 1:
            raise EnvError(f"env.options.expert_share is {expert_share}; it must be within 0 and 1")
        rng = random.Random(f"countdown-demonstrations-{split}-{seed}")
        kind = Puzzles(numbers, highest, operators)
        puzzles = kind.draw(split, rng)
        shown = []
        for _ in range(count):
            given, target, expression = next(puzzles)
            if split != "check" and rng.random() >= expert_share:
                expression = kind.guess(given, rng)
            answer = expression if terse else f"<answer>{expression}</answer>"
            question = Message(role="user", content=_question(given, target, terse))
            shown.append(Demonstration([question, {"role": "assistant", "content": answer}]))
        return shown

    def start(self) -> Sequence[Message]:
        """The question."""
        return [
            {"role": "user", "content": _question(self.task.data["numbers"], self.task.data["target"], self._terse)}
        ]

    def score(self) -> Score:
        """1 or 0; the parts are those of reward/countdown.py."""
        answer = f"<answer>{self.answer}</answer>" if self._terse else self.answer
        found = score(answer, self.task.data["numbers"], self.task.data["target"])
        return Score(float(found.solved), found.parts)


def _question(given: Sequence[int], target: int, terse: bool) -> str:
    if terse:
        return f"{' '.join(map(str, given))}={target}"
    return (
        f"Using each of the numbers {', '.join(map(str, given))} exactly once, write an expression that equals "
        f"{target}. Put it between <answer> and </answer>."
    )
