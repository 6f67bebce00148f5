"""The Ray cluster a command runs on.

Left out: which actor goes where (placement.py, seats.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray


@contextlib.contextmanager
def ray_cluster(address: str | None) -> Iterator[Callable[[], object]]:
    """A Ray cluster of our own, the one at ``address``, or the one this process is connected to already.

    It comes up while other things are done; call what is yielded before the first actor.
    """
    if ray.is_initialized():
        yield lambda: None
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with ThreadPoolExecutor(1) as thread:
        starting = thread.submit(_start_ray, address)

        def wait() -> None:
            starting.result()
            _keep_signals()

        try:
            yield wait
        finally:
            starting.result()
            ray.shutdown()


def _start_ray(address: str | None) -> None:
    # Ray's actors are niced by default, so that anything else that runs here would come first.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Without "local" Ray would join any cluster that is announced on this machine.
    own = {"address": "local", "include_dashboard": False, "num_cpus": max(4, os.cpu_count() or 1)}
    where: dict[str, Any] = own if address is None else {"address": address}
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)


def _keep_signals() -> None:
    """Put this process's own handler of SIGTERM back: Ray's would abort it, and the actors' end would be nobody's."""
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
