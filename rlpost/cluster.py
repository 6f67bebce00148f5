"""The Ray cluster a command runs on.

Left out: which actor goes where (placement.py, seats.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray.job_config import JobConfig

from rlpost.reward.packages import Package


class _InstalledCodeFirst(JobConfig):
    """Ray would put the driver's working directory before everything installed on the path of each actor, where a
    user's ``torch.py`` or ``datasets.py`` takes the place of a package. Code of a user's own comes as packages."""

    def _serialize(self) -> str:
        self._py_driver_sys_path: list[str] = []
        serialized: str = super()._serialize()
        return serialized


@contextlib.contextmanager
def ray_cluster(address: str | None, code: Sequence[Package] = ()) -> Iterator[Callable[[], object]]:
    """A Ray cluster of our own, the one at ``address``, or the one this process is connected to already.

    It comes up while other things are done; call what is yielded before the first actor. Every actor has ``code`` on
    its path, behind what is installed; where this process was connected before, they find the folders themselves on
    this machine alone.
    """
    if ray.is_initialized():
        yield lambda: None
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with ThreadPoolExecutor(1) as thread:
        starting = thread.submit(_start_ray, address, code)

        def wait() -> None:
            starting.result()
            _keep_signals()

        try:
            yield wait
        finally:
            starting.result()
            ray.shutdown()


def _start_ray(address: str | None, code: Sequence[Package]) -> None:
    # Ray's actors are niced by default, so that anything else that runs here would come first.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Without "local" Ray would join any cluster that is announced on this machine.
    own = {"address": "local", "include_dashboard": False, "num_cpus": max(4, os.cpu_count() or 1)}
    where: dict[str, Any] = own if address is None else {"address": address}
    runtime_env = {"py_modules": [str(package.copy) for package in code]} if code else None
    ray.init(
        log_to_driver=False,
        logging_level=logging.ERROR,
        job_config=_InstalledCodeFirst(),
        runtime_env=runtime_env,
        **where,
    )


def _keep_signals() -> None:
    """Put this process's own handler of SIGTERM back: Ray's would abort it, and the actors' end would be nobody's."""
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
