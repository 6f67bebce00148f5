"""Sessions that are kept for the next caller: starting one and importing much in it takes longer than using it.

Only for sessions that never run a program of the model's: what one caller does stays in the session for the next.
Left out: a bound on their number; there are as many as callers at once.
"""

from __future__ import annotations

import contextlib
import os
import queue
from collections.abc import Callable, Iterator

from reward.sandbox import Session


class SessionPool:
    """Sessions made by ``make`` when none is idle, each lent ``turns`` times at most. Any thread may borrow."""

    def __init__(self, make: Callable[[], Session], turns: int) -> None:
        self._make, self._turns = make, turns
        self._idle: dict[int, queue.LifoQueue[tuple[Session, int]]] = {}

    @contextlib.contextmanager
    def lend(self) -> Iterator[Session]:
        """A session for one caller; it goes back unless it died or the caller failed."""
        idle = self._idle.setdefault(os.getpid(), queue.LifoQueue())  # a forked copy of this process has its own
        try:
            session, turns = idle.get_nowait()
        except queue.Empty:
            session, turns = self._make(), self._turns
        clean = False
        try:
            yield session
            clean = session.alive and turns > 1
        finally:
            if clean:
                idle.put((session, turns - 1))
            else:
                session.close()
