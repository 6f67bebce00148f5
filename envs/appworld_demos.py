"""Demonstrations in our own world: its reference solutions, played turn by turn, with what the world really answers.

Left out: solutions of the real AppWorld, and turns that go wrong.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from rlpost.envs.appworld_prompt import REMINDER, opening, turn
from rlpost.envs.base import Demonstration, EnvError, Message
from rlpost.envs.errands.datasets import load_task_ids, task_of
from rlpost.envs.errands.server import describe
from rlpost.envs.errands.world import ErrandsWorld

THOUGHTS = (
    "First I look at the API docs.",
    "I sign in to the apps that I need.",
    "Now I look up what the task is about.",
    "Now I do what was asked and complete the task.",
)


def demonstrate(
    split: str,
    seed: int,
    count: int,
    train: str = "train",
    difficulties: Sequence[int] | None = None,
    unsafe: bool = False,
    prompt: str | None = None,
    reminder: bool = False,
) -> list[Demonstration]:
    """``count`` conversations: "train" of the training tasks, "check" of other variants of the same scenarios; again
    from the first where there are fewer tasks than ``count``.

    Raises:
        EnvError: no such split.
    """
    if split not in ("train", "check"):
        raise EnvError(f"AppWorld has demonstrations 'train' and 'check', not '{split}'")
    ids = load_task_ids(train if split == "train" else "train_variants")
    ids = [task_id for task_id in ids if difficulties is None or task_of(task_id).difficulty in difficulties]
    random.Random(f"errands-demonstrations-{split}-{seed}").shuffle(ids)
    played = [Demonstration(_play(task_id, unsafe, prompt, reminder)) for task_id in ids[:count]]
    return [played[place % len(played)] for place in range(count)]


def _play(task_id: str, unsafe: bool, prompt: str | None, reminder: bool) -> list[Message]:
    with ErrandsWorld(task_id, unsafe=unsafe) as world:
        messages = opening(describe(task_id), prompt)
        after = REMINDER.format(world.task.instruction) if reminder else ""
        for thought, code in zip(THOUGHTS, world.plan.solution, strict=True):
            messages.append(Message(role="assistant", content=turn(thought, code)))
            answer = world.execute(code)
            messages.append(Message(role="user", content=answer.rstrip("\n") + after))
        return messages[:-1]
