"""Time that counts against a call's deadline, and time that does not: waiting for a judge, and a judge at work, who has
limits of its own. Whoever calls an environment hands its thread a ``Clock``; whoever judges stops it.

Left out: deadlines themselves (rollout/env_session.py) and limits (reward/sandbox).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
_current: ContextVar[Clock | None] = ContextVar("clock", default=None)


class Clock:
    """One call's clock; it is running unless somebody stopped it. Any thread may look at it."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._stopped_s = 0.0
        self._since = 0.0
        self._stoppers = 0
        self._lock = threading.Lock()

    @property
    def counted_s(self) -> float:
        """Seconds since it was made in which it was running."""
        with self._lock:
            now = time.monotonic()
            return now - self._began - self._stopped_s - (now - self._since if self._stoppers else 0.0)

    @property
    def stopped(self) -> bool:
        """Whether it stands still."""
        return self._stoppers > 0

    def run(self, call: Callable[[], T]) -> T:
        """Call with this as the clock that ``off_the_clock`` stops."""
        token = _current.set(self)
        try:
            return call()
        finally:
            _current.reset(token)

    @contextlib.contextmanager
    def stop(self) -> Iterator[None]:
        """Stand still for so long; may be nested."""
        with self._lock:
            self._since = self._since if self._stoppers else time.monotonic()
            self._stoppers += 1
        try:
            yield
        finally:
            with self._lock:
                self._stoppers -= 1
                self._stopped_s += 0.0 if self._stoppers else time.monotonic() - self._since


def off_the_clock() -> contextlib.AbstractContextManager[None]:
    """What is done in this context does not count against the deadline of the call that it is part of. It must have a
    limit of its own."""
    clock = _current.get()
    return contextlib.nullcontext() if clock is None else clock.stop()
