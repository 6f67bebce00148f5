"""Faults in words: which actor died, on what task, with its last log lines; and waiting for several without hanging.

Left out: what to do about it (workers.py restarts, the controller stops).
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

RAY_LOGS = "/tmp/ray/session_latest/logs"
"""Where Ray keeps the actors' output on this node."""


GRACE_S = 5.0
"""Seconds to learn whether another actor died, once one has failed."""


class RunError(RuntimeError):
    """The run cannot go on; the message is for the user."""


class CallFailed(Exception):
    """One of several calls that belong together failed.

    Attributes:
        place: which one; ``error``: Ray's, or None where the time was over; ``missing``: all that had not ended.
    """

    def __init__(self, place: int, error: Exception | None, missing: list[int]) -> None:
        super().__init__(place, error, missing)
        self.place, self.error, self.missing = place, error, missing


def gather(refs: Sequence[ray.ObjectRef], deadline_s: float) -> list[Any]:
    """What calls that wait for each other returned, in order; the first failure of any ends the wait.

    Where an actor died its partners fail too and may be heard first, so a death is looked for among the others.

    Raises:
        CallFailed: one failed, or ``deadline_s`` seconds were over.
    """
    places = {ref: place for place, ref in enumerate(refs)}
    waiting, end = list(refs), time.monotonic() + deadline_s
    while waiting:
        done, waiting = ray.wait(waiting, num_returns=1, timeout=max(0.0, end - time.monotonic()))
        missing = [places[ref] for ref in waiting]
        if not done:
            raise CallFailed(missing[0], None, missing)
        try:
            ray.get(done[0])
        except ray.exceptions.RayActorError as error:
            raise CallFailed(places[done[0]], error, missing) from error
        except ray.exceptions.RayError as error:
            place, cause = _a_death(waiting, places) or (places[done[0]], error)
            raise CallFailed(place, cause, missing) from error
    return list(ray.get(list(refs)))


def _a_death(waiting: list[ray.ObjectRef], places: dict[ray.ObjectRef, int]) -> tuple[int, Exception] | None:
    ended, _ = ray.wait(waiting, num_returns=len(waiting), timeout=GRACE_S) if waiting else ([], [])
    for ref in ended:
        try:
            ray.get(ref)
        except ray.exceptions.RayActorError as death:
            return places[ref], death
        except ray.exceptions.RayError:
            continue
    return None


def last_log_lines(pid: int | None, count: int = 15) -> str:
    """The last lines an actor process of this node wrote, or a word on why there are none."""
    if pid is None:
        return "(its process id is not known, so its log was not found)"
    found = sorted(glob.glob(os.path.join(RAY_LOGS, f"worker-*-{pid}.err")))
    found += sorted(glob.glob(os.path.join(RAY_LOGS, f"worker-*-{pid}.out")))
    lines: list[str] = []
    for name in found:
        lines += Path(name).read_text(errors="replace").splitlines()[-count:]
    if not lines:
        return f"(nothing in {RAY_LOGS}/worker-*-{pid}.err; on another node, look there)"
    return "\n".join("    " + line for line in lines[-count:])
