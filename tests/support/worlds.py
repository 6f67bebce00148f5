"""Small environments for tests of the episode driver, among them every kind of broken one."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Sequence
from typing import Any

from rlpost.envs.base import Env, Message, Observation, Task
from rlpost.reward.score import Score


class Chatter(Env):
    """Talks for ``turns`` turns in random words of every script; the score is the number of texts it was given."""

    closed: list[str] = []  # noqa: RUF012  (task ids, in order; tests clear it)

    def __init__(self, task: Task, seed: int, turns: int = 3, words: int = 6) -> None:
        super().__init__(task, seed)
        self.turns = turns
        self.words = words
        self.rng = random.Random(seed)
        self.texts: list[str] = []

    def start(self) -> Sequence[Message]:
        return [{"role": "system", "content": "Chat."}, {"role": "user", "content": self._say()}]

    def step(self, text: str) -> Observation:
        self.texts.append(text)
        return Observation(self._say(), done=len(self.texts) >= self.turns)

    def score(self) -> Score:
        return Score(float(len(self.texts)), {"texts": float(len(self.texts))})

    def close(self) -> None:
        self.closed.append(self.task.id)

    def metrics(self) -> dict[str, float]:
        return {"characters": float(sum(len(text) for text in self.texts))}

    def _say(self) -> str:
        words = ["ja", "naïve", "時計", "🕐🕑", "<|im_end|>", "\n", "  ", "x" * 30]
        return " ".join(self.rng.choice(words) for _ in range(self.rng.randrange(self.words)))


class AsyncChatter(Env):
    """The same course in ``async def`` throughout; remembers the thread it ran on."""

    threads: set[str] = set()  # noqa: RUF012

    def __init__(self, task: Task, seed: int, **options: Any) -> None:
        super().__init__(task, seed)
        self.inner = Chatter(task, seed, **options)
        self.threads.add(threading.current_thread().name)

    async def start(self) -> Sequence[Message]:  # type: ignore[override]
        self.threads.add(threading.current_thread().name)
        return self.inner.start()

    async def step(self, text: str) -> Observation:  # type: ignore[override]
        await asyncio.sleep(0)
        return self.inner.step(text)

    async def score(self) -> Score:  # type: ignore[override]
        return self.inner.score()

    async def close(self) -> None:  # type: ignore[override]
        self.inner.close()


class QuickChatter(Chatter):
    """Never blocks, and says so; remembers the thread it ran on."""

    blocking = False
    threads: set[str] = set()  # noqa: RUF012

    def step(self, text: str) -> Observation:
        self.threads.add(threading.current_thread().name)
        if self.task.data.get("how") == "raise":
            raise KeyError("lost")
        return super().step(text)


class Broken(Chatter):
    """Misbehaves in the method ``task.data["where"]`` in the way ``task.data["how"]``."""

    release = threading.Event()

    def __init__(self, task: Task, seed: int, **options: Any) -> None:
        super().__init__(task, seed, **options)
        self._misbehave("__init__")

    def start(self) -> Sequence[Message]:
        return self._misbehave("start") or super().start()

    def step(self, text: str) -> Observation:
        return self._misbehave("step") or super().step(text)

    def score(self) -> Score:
        return self._misbehave("score") or super().score()

    def metrics(self) -> dict[str, float]:
        return self._misbehave("metrics") or super().metrics()

    def close(self) -> None:
        super().close()
        self._misbehave("close")

    def _misbehave(self, method: str) -> Any:
        how = self.task.data["how"]
        if method != self.task.data["where"]:
            return None
        if how == "raise":
            raise KeyError("lost")
        if how == "exit":
            raise SystemExit(3)
        if how == "nan":
            return Score(float("nan"))
        if how == "nonsense":
            return 17
        assert how == "hang"
        self.release.wait(30)
        return None


class AsyncBroken(AsyncChatter):
    """Raises or hangs in an ``async def`` step."""

    async def step(self, text: str) -> Observation:  # type: ignore[override]
        how = self.task.data["how"]
        if how == "raise":
            raise KeyError("lost")
        if how == "exit":
            raise SystemExit(3)
        await asyncio.sleep(30)
        return Observation("")


class Slow(Chatter):
    """Takes ``task.data["seconds"]`` to be built and to step."""

    def __init__(self, task: Task, seed: int, **options: Any) -> None:
        super().__init__(task, seed, **options)
        time.sleep(task.data["seconds"])

    def step(self, text: str) -> Observation:
        time.sleep(self.task.data["seconds"])
        return super().step(text)


class Keeper(Env):
    """Asks once and keeps what it is told."""

    kept: list[str] = []  # noqa: RUF012

    def start(self) -> Sequence[Message]:
        return [{"role": "user", "content": "?"}]

    def step(self, text: str) -> Observation:
        self.kept.append(text)
        return Observation("", done=True)

    def score(self) -> Score:
        return Score(0.0)
