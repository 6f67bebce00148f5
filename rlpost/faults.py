"""Faults in words: which actor died, on what task, with its last log lines.

Left out: what to do about it (workers.py restarts, the controller stops).
"""

from __future__ import annotations

import glob
import os
from pathlib import Path

RAY_LOGS = "/tmp/ray/session_latest/logs"
"""Where Ray keeps the actors' output on this node."""


class RunError(RuntimeError):
    """The run cannot go on; the message is for the user."""


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
