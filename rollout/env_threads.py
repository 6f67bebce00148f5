"""Daemon threads for environment methods that are plain ``def``.

One thread serves one episode at a time, so an environment stays on one thread while all goes well (SQLite handles and
the like need that). A thread whose call overran is left to itself: Python cannot stop it. If the call does end one day,
the thread goes back to work. Left out: an executor of the standard library, whose threads would keep a process from
exiting and whose size a few hung calls would use up.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Outcome:
    """What a call returned, or the exception it raised (of any kind: a library may well call ``sys.exit``)."""

    value: Any = None
    error: BaseException | None = None


def outcome_of(call: Callable[[], Any]) -> Outcome:
    """Call, and catch everything."""
    try:
        return Outcome(call())
    except BaseException as error:
        return Outcome(error=error)


@dataclass(slots=True)
class _Job:
    call: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Outcome]
    late: Callable[[Any], None] | None


class EnvThread:
    """One thread and the calls waiting for it."""

    def __init__(self, number: int) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name=f"env-{number}", daemon=True).start()

    def submit(self, call: Callable[[], Any], late: Callable[[Any], None] | None = None) -> asyncio.Future[Outcome]:
        """Run ``call`` on this thread. Where the future was cancelled meanwhile, ``late`` gets the value that
        nobody waits for, on the event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        self._jobs.put(_Job(call, loop, future, late))
        return future

    def stop(self) -> None:
        """End the thread after the calls it has."""
        self._jobs.put(None)

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            outcome = outcome_of(job.call)
            with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody is left to tell
                job.loop.call_soon_threadsafe(_deliver, job, outcome)
            del job, outcome  # or the last episode's world would live until the next call


def _deliver(job: _Job, outcome: Outcome) -> None:
    if not job.future.cancelled():
        job.future.set_result(outcome)
    elif job.late is not None and outcome.error is None:
        job.late(outcome.value)


class EnvThreads:
    """The threads of one worker; as many as episodes need at once. All methods belong to the event loop's thread."""

    def __init__(self) -> None:
        self._idle: list[EnvThread] = []
        self._lost: dict[EnvThread, float] = {}
        self._started = 0

    def take(self) -> EnvThread:
        """A free thread."""
        if self._idle:
            return self._idle.pop()
        self._started += 1
        return EnvThread(self._started)

    def give_back(self, thread: EnvThread) -> None:
        """The thread is free again."""
        self._lost.pop(thread, None)
        self._idle.append(thread)

    def lose(self, thread: EnvThread, deadline: float) -> None:
        """The thread's call was given up; it counts as abandoned once ``deadline`` (monotonic seconds) has passed."""
        self._lost[thread] = deadline
        thread.submit(lambda: None).add_done_callback(lambda _: self.give_back(thread))

    @property
    def abandoned(self) -> int:
        """Threads that still run a call beyond its deadline."""
        now = time.monotonic()
        return sum(deadline <= now for deadline in self._lost.values())

    def close(self) -> None:
        """End the free threads; busy ones are daemons and end with the process."""
        for thread in self._idle:
            thread.stop()
        self._idle.clear()
