"""The contract an environment keeps: one object is one episode, so there is no ``reset``.

The episode driver calls ``start``, then ``step`` with each text the model wrote, then ``score`` and ``close``.
Every method may be ``def`` (it is run in a thread) or ``async def``. Each call has a deadline; an environment that
raises or overruns loses its own episode and nothing else. Left out: tokens (the driver's), training (the roof's).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypedDict

from rlpost.reward.score import Score

__all__ = ["Demonstration", "Env", "EnvError", "Message", "Observation", "Score", "Task"]


class EnvError(RuntimeError):
    """An environment cannot be built or cannot give tasks; the message says which and why."""


class Message(TypedDict):
    """One chat message; ``role`` is ``system``, ``user``, ``assistant`` or ``tool``."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Task:
    """One thing to solve.

    Attributes:
        id: unique within its split; named in every log line and error about it.
        data: whatever the environment needs to build the episode; plain JSON types.
        scenario: tasks that are variants of one scenario share it (for scenario goal completion).
        difficulty: 1 (easy) and up; 0 where there is no such notion.
        source: the data source the task was drawn from.
    """

    id: str
    data: dict[str, Any]
    scenario: str = ""
    difficulty: int = 0
    source: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """The world's answer to one action. ``done`` ends the episode; ``text`` is then not shown to the model."""

    text: str
    done: bool = False


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One scripted conversation for the warm start; it ends with the assistant's message."""

    messages: Sequence[Message] = field(default_factory=list)


class Env:
    """Base class of all environments; an instance is one episode of one task.

    Args:
        task: the task of this episode.
        seed: the episode's own seed; any randomness inside must come from it.
        **options: the recipe's ``env.options``; a subclass names the ones it takes.
    """

    blocking: ClassVar[bool | frozenset[str]] = True
    """True: any method may block. False, or the names of those that may, promises that the others wait for nothing and
    run no longer than about a millisecond (the constructor counts as ``start``). Plain ``def`` methods are then called
    straight on the rollout worker's event loop: ten times cheaper than a thread, but no deadline."""

    def __init__(self, task: Task, seed: int, **options: Any) -> None:
        self.task = task
        self.seed = seed

    @classmethod
    def tasks(cls, split: str, seed: int, **options: Any) -> Sequence[Task]:
        """All tasks of ``split`` ("train" or "eval"); the two must be disjoint. Not needed where ``data`` has a
        file."""
        raise EnvError(f"{cls.__name__} brings no tasks of its own; name a file in data.train and data.eval")

    @classmethod
    def check_tasks(cls, tasks: Sequence[Task], **options: Any) -> None:
        """Raise EnvError for tasks that no episode could be played or judged with; asked once, before training."""

    @classmethod
    def demonstrations(cls, split: str, seed: int, count: int, **options: Any) -> Sequence[Demonstration]:
        """Scripted conversations for a warm start. ``split`` is "train", or "check": held-out ones whose *last*
        assistant message the warm-started model should be able to write."""
        raise EnvError(f"{cls.__name__} has no scripted demonstrations; name a file in warm_start.data")

    def start(self) -> Sequence[Message]:
        """The opening messages (system, user, ...)."""
        raise NotImplementedError

    def step(self, text: str) -> Observation:
        """Act on what the model wrote in this turn."""
        raise NotImplementedError

    def score(self) -> Score:
        """Judge the episode; called once, also when it was cut off by a turn or token limit."""
        raise NotImplementedError

    def close(self) -> None:
        """Release what the episode held; called exactly once, whatever happened before. Where a call overran its
        deadline and still runs, ``close`` comes from another thread, and had better end what that call waits for."""

    def metrics(self) -> Mapping[str, float]:
        """Numbers about this episode for the log (averaged over episodes); called after ``score``."""
        return {}
