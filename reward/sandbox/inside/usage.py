"""What a tree of processes uses, read from the host's /proc by the keeper; and its end where no namespace ends it.

What the kernel holds for a program is in no process's resident memory: buffers of pipes and sockets. They are counted
as full. Left out: cgroups, which count all of it where they can be had (``cgroup``).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_DESCRIPTORS = (24, 64)
"""Open files a process may have, at least and at most."""
LEAST_MIB = 2
"""More than the least that a process takes: no more of them fit a memory limit, whatever the limit of processes."""
_FREE_DESCRIPTORS = 8  # what the interpreter itself and an event loop take
_PIPE, _SOCKET = 1 << 15, 212_992  # bytes that half a pipe holds, and that a socket may have under way
_USER, _SYSTEM, _CHILD_USER, _CHILD_SYSTEM, _THREADS, _RESIDENT = 11, 12, 13, 14, 17, 21  # /proc/*/stat after ")"


def descriptors(memory_mib: int, processes: int) -> int:
    """Open files that each process may have. Each may be the end of a full pipe, and a program fills those of all its
    processes between two looks at it: together they take at most half of the memory limit."""
    least, most = _DESCRIPTORS
    return max(least, min(most, memory_mib * 2**19 // (processes * _PIPE)))


@dataclass(frozen=True, slots=True)
class Usage:
    """Totals over all processes below an init.

    Attributes:
        memory: bytes: resident ones beyond ``baseline`` for each process, and what pipes and sockets may hold.
        cpu_s: seconds of processor time, of processes that ended too.
        threads: how many there are.
    """

    memory: int
    cpu_s: float
    threads: int


def own_memory(proc: int) -> tuple[int, int]:
    """(address space, private resident) bytes of this process; ``proc`` is a descriptor of /proc."""
    size, resident, shared = (int(word) for word in _read(proc, "self/statm").split()[:3])
    return size * _PAGE, (resident - shared) * _PAGE


def of_tree(proc: int, init: int, baseline: int, isolated: bool = True) -> Usage:
    """Usage of everything below ``init`` (itself counted only for the CPU time of what it reaped). Sockets are
    counted where it is ``isolated``: all those of its network namespace."""
    memory, ticks, threads = _sockets(proc, init) * _SOCKET if isolated else 0, 0, 0
    for pid in descendants(proc, init):
        try:
            stat = _read(proc, f"{pid}/stat")
        except OSError:  # it ended meanwhile; its CPU time went to its parent
            continue
        fields = stat[stat.rindex(")") + 2 :].split()
        ticks += sum(int(fields[i]) for i in (_USER, _SYSTEM, _CHILD_USER, _CHILD_SYSTEM))
        if pid != init:
            threads += int(fields[_THREADS])
            memory += max(0, int(fields[_RESIDENT]) * _PAGE - baseline)
            memory += max(0, _descriptors(proc, pid) - _FREE_DESCRIPTORS) * _PIPE
    return Usage(memory, ticks / _TICKS, threads)


def _sockets(proc: int, init: int) -> int:
    try:
        return max(0, _read(proc, f"{init}/net/unix").count("\n") - 1)
    except OSError:
        return 0


def _descriptors(proc: int, pid: int) -> int:
    try:
        return len(_list(proc, f"{pid}/fd"))
    except OSError:  # it ended, or its files are another user's
        return 0


def descendants(proc: int, init: int) -> Iterator[int]:
    """``init`` and every process below it."""
    pending = [init]
    while pending:
        pid = pending.pop()
        yield pid
        try:
            for thread in _list(proc, f"{pid}/task"):
                pending += [int(word) for word in _read(proc, f"{pid}/task/{thread}/children").split()]
        except OSError:
            continue


def kill_below(proc: int, root: int) -> None:
    """Kill every process below ``root`` until none is left (or for 2 s: without a PID namespace it is a race)."""
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        below = [pid for pid in descendants(proc, root) if pid != root]
        if not below:
            return
        for pid in below:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)


def _read(proc: int, path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY, dir_fd=proc)
    try:
        return os.read(descriptor, 1 << 20).decode(errors="replace")
    finally:
        os.close(descriptor)


def _list(proc: int, path: str) -> list[str]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=proc)
    try:
        return os.listdir(descriptor)
    finally:
        os.close(descriptor)
