"""Process 1 of a program's namespaces: it mounts the scratch folder, gives up every right, reaps, and tells the end.

No program text runs in it, and no program can signal, trace or read it. Left out: limits (the keeper's and the
kernel's) and the program itself (``program``, ``shell``).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import tempfile
import traceback
from typing import NoReturn

from rlpost.reward.sandbox.inside import filesystem, identity, kernel, lockdown, program, shell, usage
from rlpost.reward.sandbox.inside.cgroup import Group
from rlpost.reward.sandbox.inside.setting import Ends, Site, close_all_but
from rlpost.reward.sandbox.limits import Limits

_exit = os._exit  # bound now: a program may replace it


def run(site: Site, limits: Limits, session: bool, ends: Ends, group: Group | None) -> NoReturn:
    """Run the program in a child; write its wait status, or ``setup`` and what failed, as the verdict; exit."""
    with contextlib.suppress(OSError):
        identity.write(site.proc, "self/oom_score_adj", "1000")  # where memory runs out, a program goes first
    try:
        if group is not None:
            group.join()
        close_all_but(site.proc, ends.channel, ends.out, ends.err, ends.verdict)
        verdict = _isolated(site, limits, session, ends) if site.isolated else _exposed(site, limits, session, ends)
    except BaseException as error:
        verdict = f"setup {error}"
    try:
        os.write(ends.verdict, verdict.encode())
    finally:
        os._exit(0)


def _isolated(site: Site, limits: Limits, session: bool, ends: Ends) -> str:
    filesystem.mount_scratch(limits.file_bytes)
    kernel.set_hostname("sandbox")
    if not site.user_namespaces:
        identity.become_nobody()
        if os.geteuid() == 0:
            raise OSError("cannot give up root: this host has no other user to become")
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    return _reap(_fork_program(site, limits, session, ends))


def _exposed(site: Site, limits: Limits, session: bool, ends: Ends) -> str:
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    scratch = tempfile.mkdtemp(prefix="rlpost-unsafe-")
    os.chdir(scratch)
    try:
        return _reap(_fork_program(site, limits, session, ends))
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what is killed now is reaped by the kernel
        usage.kill_below(site.proc, os.getpid())
        shutil.rmtree(scratch, ignore_errors=True)


def _fork_program(site: Site, limits: Limits, session: bool, ends: Ends) -> int:
    child = os.fork()
    if child != 0:
        return child
    try:
        lockdown.enter(site, limits, ends)
        if session:
            shell.serve(socket.socket(fileno=lockdown.CHANNEL), limits)
        else:
            program.run(lockdown.CHANNEL)
    except BaseException:
        traceback.print_exc()
    finally:
        _exit(70)


def _reap(child: int) -> str:
    """Wait for ``child``, reaping orphans on the way; its wait status."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return str(status)
