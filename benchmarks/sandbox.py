"""How many small programs a second the sandbox runs, and checks against tests: rlpost bench sandbox [SECONDS].

Prints, for one caller and for one caller a core, programs a second, and the processor time that one costs as the
kernel accounts for it (system-wide: only meaningful where the machine is otherwise idle). Left out: third-party
packages; their import is paid once, not by each program.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rlpost.reward import sandbox
from rlpost.reward.code import check

PROGRAM = "def f(x):\n    return sorted(x)[-1]\nassert f([3, 1, 2]) == 3\n"
TESTS = "assert f([3, 1, 2]) == 3\nassert f([5]) == 5\n"


def main(seconds: float) -> None:
    """Measure each way of running a program."""
    if sandbox.isolation() is None:
        raise SystemExit(sandbox.isolation_problem())
    cores = len(os.sched_getaffinity(0))
    print(f"{sandbox.isolation()}; {cores} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'':22}{'callers':>8}{'programs/s':>12}{'per core':>10}{'CPU ms each':>13}")
    for name, once in (("run", _run), ("session, one block", _session), ("check against tests", _check)):
        once()
        for callers in sorted({1, cores}):
            rate, busy_ms = _rate(once, callers, seconds)
            print(f"{name:22}{callers:8d}{rate:12.1f}{rate / callers:10.1f}{busy_ms:13.1f}")


def _run() -> None:
    assert sandbox.run(PROGRAM).ok


def _session() -> None:
    with sandbox.Session() as session:
        assert session.execute(PROGRAM).ok


def _check() -> None:
    assert check(PROGRAM, TESTS).passed


def _rate(once: Callable[[], None], callers: int, seconds: float) -> tuple[float, float]:
    """(programs a second, processor milliseconds each)."""
    done = [0] * callers
    end = time.monotonic() + seconds

    def call(place: int) -> None:
        while time.monotonic() < end:
            once()
            done[place] += 1

    started, busy = time.monotonic(), _busy_s()
    threads = [threading.Thread(target=call, args=(place,)) for place in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.monotonic() - started), 1000 * (_busy_s() - busy) / sum(done)


def _busy_s() -> float:
    """Seconds that all cores together were not idle, since the machine started."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle, waiting = fields[3], fields[4]
    return (sum(fields) - idle - waiting) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0)
