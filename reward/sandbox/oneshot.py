"""One program, one outcome.

Left out: input on standard input (it is empty), files handed in, and programs in other languages.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Sequence

from rlpost.reward.clock import off_the_clock
from rlpost.reward.sandbox import launcher
from rlpost.reward.sandbox.isolation import choose
from rlpost.reward.sandbox.limits import Limits, Outcome, Reason

_LONGEST = 4 << 20  # bytes of program text
_slots: dict[int, threading.Semaphore] = {}  # by process id: a forked copy must not wait for threads it has not
_GRACE_S = 20.0  # beyond the wall clock, for setting up and tearing down on a busy machine


def run(program: str, limits: Limits | None = None, *, packages: Sequence[str] = (), unsafe: bool = False) -> Outcome:
    """Run Python text as a program of its own, isolated from this host.

    Any thread may call it; no more programs run at once than the machine has cores, as a crowd would run into wall
    clocks. Neither the wait nor the program counts against an environment's deadline: the limits bound it.

    Args:
        program: the text; it runs as ``__main__`` in an empty scratch folder, with the standard library.
        limits: bounds; the defaults of ``Limits`` where None.
        packages: import names of installed third-party packages it may also use (with all they import); imported
            beforehand.
        unsafe: go on without isolation where the host gives none.

    Raises:
        SandboxUnavailable: no isolation here, and not ``unsafe``.
        SandboxError: the sandbox itself failed; nothing is known of the program.
        ModuleNotFoundError: one of ``packages`` is not installed.
    """
    limits = limits or Limits()
    try:
        text = program.encode()
    except UnicodeEncodeError as error:
        return Outcome(Reason.REFUSED, detail=f"the program is not valid text: {error}")
    if len(text) > _LONGEST:
        return Outcome(Reason.REFUSED, detail=f"the program has {len(text)} bytes, more than {_LONGEST}")
    isolated = choose(unsafe)
    with off_the_clock(), _slots.setdefault(os.getpid(), threading.Semaphore(os.cpu_count() or 1)):
        return _run(text, limits, packages, isolated)


def _run(text: bytes, limits: Limits, packages: Sequence[str], isolated: bool) -> Outcome:
    channel, report = launcher.launch(False, limits, packages, isolated)
    with channel, report:
        channel.settimeout(limits.wall_s + _GRACE_S)
        with contextlib.suppress(OSError):  # it is dead already; the report says why
            channel.sendall(text)
            channel.shutdown(socket.SHUT_WR)
        return launcher.collect(report, limits.wall_s + _GRACE_S)
