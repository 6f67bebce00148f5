"""Sessions that are kept for the next caller: starting one and importing much in it takes longer than using it.

Only for sessions that never run a program of the model's: what one caller does stays in the session for the next.
Left out: fairness; who waits longest need not be next.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rlpost.reward.clock import off_the_clock
from rlpost.reward.sandbox import Session

SMALL_MACHINE = 4
"""Cores up to which all are judged on. Of more, half: they mostly come in pairs, and an engine lives there too."""


def at_once() -> int:
    """Sessions lent at the same time."""
    cores = os.cpu_count() or 1
    return cores if cores <= SMALL_MACHINE else cores // 2


@dataclass(slots=True)
class _Stock:
    """What one process has: idle sessions with the turns left in each, and leave to use so many at once."""

    idle: queue.LifoQueue[tuple[Session, int]] = field(default_factory=queue.LifoQueue)
    slots: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(at_once()))
    starting: threading.Lock = field(default_factory=threading.Lock)


class SessionPool:
    """Sessions made by ``make`` when none is idle, each lent ``turns`` times at most. Any thread may borrow; no more
    are lent at once than ``at_once`` says, as a crowd would run into wall clocks."""

    def __init__(self, make: Callable[[], Session], turns: int) -> None:
        self._make, self._turns = make, turns
        self._stocks: dict[int, _Stock] = {}

    @contextlib.contextmanager
    def lend(self) -> Iterator[Session]:
        """A session for one caller; it goes back unless it died or the caller failed. Neither the wait for it nor what
        is done with it counts against an environment's deadline: bound each block."""
        stock = self._stocks.setdefault(os.getpid(), _Stock())  # a forked copy of this process has its own
        with off_the_clock(), stock.slots:
            session, turns = self._take(stock)
            good = False
            try:
                yield session
                good = session.alive and turns > 1
            finally:
                if good:
                    stock.idle.put((session, turns - 1))
                else:
                    session.close()

    def _take(self, stock: _Stock) -> tuple[Session, int]:
        """An idle session, or a new one. They are started one at a time: a crowd of callers would all start one at
        once, and by the time the first is up it may serve most of them."""
        with contextlib.suppress(queue.Empty):
            return _alive(stock)
        with stock.starting:
            with contextlib.suppress(queue.Empty):
                return _alive(stock)
            return self._make(), self._turns


def _alive(stock: _Stock) -> tuple[Session, int]:
    """An idle session that nothing has killed meanwhile. Raises queue.Empty: there is none."""
    while True:
        session, turns = stock.idle.get_nowait()
        if session.alive:
            return session, turns
        session.close()
