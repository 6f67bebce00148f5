"""The keeper: one a program, outside the program's namespaces. It makes them, watches, kills, and reports.

Reasons come from here and from the kernel's wait status, never from what the program says of itself. Left out: what
happens inside the namespaces (``init``).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import socket
import time
from dataclasses import dataclass, field
from typing import Any, NoReturn

from rlpost.reward.sandbox.inside import identity, init, kernel, usage
from rlpost.reward.sandbox.inside.cgroup import Group
from rlpost.reward.sandbox.inside.setting import Ends, Site
from rlpost.reward.sandbox.limits import Limits, Reason

_LOOK_S = (0.002, 0.02)  # between two looks at memory, CPU time and process count: where memory is scarce, and else
_FILL = 16 << 30  # bytes a second: what a program is taken to fill, with forks and pipes of all its processes
NAMESPACES = (
    kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWCGROUP
)


def keep(site: Site, request: dict[str, Any], channel: int, report: int, group: Group | None) -> NoReturn:
    """Run one program to its end and report; never returns.

    Args:
        site: what the zygote prepared.
        request: ``{"session": bool, "limits": {...}}``.
        channel: descriptor of the socket that the program's process talks to the host through.
        report: descriptor of the socket for the outcome. The host may send lines through it, each the seconds of
            processor time that the program may use from now on; its end of file means that nobody waits any more.
        group: the cgroup that the program goes into, where there are any.
    """
    try:
        host = socket.socket(fileno=report)
        host.sendall(b"+")  # taken up
        os.setsid()  # a signal to a process group crosses namespaces
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        message = _run(site, request, channel, report, group)
        with contextlib.suppress(OSError):
            host.sendall(message)
    finally:
        os._exit(0)


def _run(site: Site, request: dict[str, Any], channel: int, report: int, group: Group | None) -> bytes:
    try:
        watch = _start(site, Limits(**request["limits"]), request["session"], channel, report, group)
        watch.until_dead()
        return watch.outcome()
    except Exception as error:
        return json.dumps({"lost": f"{type(error).__name__}: {error}"}).encode() + b"\n"


def _start(site: Site, limits: Limits, session: bool, channel: int, report: int, group: Group | None) -> Watch:
    out, out_end = os.pipe()
    err, err_end = os.pipe()
    verdict, verdict_end = os.pipe()
    if site.user_namespaces:
        identity.become_nobody()
        identity.unshare_with_user(site.proc, NAMESPACES)
    elif site.isolated:  # root on a host that forbids user namespaces; init gives up root later
        kernel.unshare(NAMESPACES)
    child = os.fork()
    if child == 0:
        init.run(site, limits, session, Ends(channel, out_end, err_end, verdict_end), group)
    for descriptor in (channel, out_end, err_end, verdict_end):
        os.close(descriptor)
    deadline = math.inf if session else time.monotonic() + limits.wall_s
    return Watch(site, limits, child, deadline, out, err, verdict, report, group)


@dataclass(slots=True)
class Watch:
    """A running program, as its keeper sees it: its init's process id, and the reading ends of its pipes."""

    site: Site
    limits: Limits
    init: int
    deadline: float
    out: int
    err: int
    verdict: int
    report: int
    group: Group | None
    started: float = field(default_factory=time.monotonic)
    cpu_end: float = math.inf
    cpu_s: float = 0.0
    peak: int = 0
    cause: Reason | None = None
    detail: str = ""
    written: dict[int, bytearray] = field(default_factory=dict)

    def until_dead(self) -> None:
        """Follow the program to its own end or to the first limit it breaks; no process of it is left afterwards."""
        poller = select.poll()
        for descriptor in (self.out, self.err, self.verdict, self.report):
            poller.register(descriptor, select.POLLIN)
        self.written = {self.out: bytearray(), self.err: bytearray(), self.verdict: bytearray()}
        look = time.monotonic() + _LOOK_S[0]
        over = False
        while not over and self.cause is None:
            wait_s = min(look, self.deadline) - time.monotonic()
            for descriptor, _ in poller.poll(max(0.0, wait_s) * 1000):
                over |= self._read(descriptor, poller)
            now = time.monotonic()
            if now >= self.deadline:
                self._stop(Reason.TIMEOUT, f"still running after {self.limits.wall_s:g} s")
            elif now >= look:
                look = now + self._look()
        self._kill()
        for descriptor in (self.out, self.err):
            self._drain(descriptor)

    def _read(self, descriptor: int, poller: select.poll) -> bool:
        """Take what is there; true where the program's own process is over."""
        if descriptor == self.report:
            return self._listen()
        part = os.read(descriptor, 1 << 16)
        if not part:
            poller.unregister(descriptor)
        self.written[descriptor] += part
        if descriptor == self.verdict:
            return True
        if len(self.written[self.out]) + len(self.written[self.err]) > self.limits.output_bytes:
            self._stop(Reason.OUTPUT, f"wrote more than {self.limits.output_bytes} bytes")
        return False

    def _listen(self) -> bool:
        """Take what the host says; true where it says no more."""
        try:
            said = os.read(self.report, 1 << 12)
        except OSError:  # it is gone, and left something unread
            said = b""
        if not said:
            self._stop(Reason.KILLED, "nobody waits for it any more")
        else:  # lines come whole: they are short, and the host waits for an answer before it sends another
            self.cpu_end = self._usage().cpu_s + float(said.split()[-1])
        return not said

    def _look(self) -> float:
        """Compare what is used with what may be; seconds until the next look."""
        now = self._usage()
        room = (self.limits.memory_mib << 20) - now.memory
        if room < 0 and self.group is None:  # a group's bound is the kernel's, and counts files too
            self._stop(Reason.MEMORY, f"its processes held more than {self.limits.memory_mib} MiB")
        elif now.cpu_s > self.limits.cpu_s:
            self._stop(Reason.CPU, f"used more than {self.limits.cpu_s:g} s of processor time")
        elif now.cpu_s > self.cpu_end:
            self._stop(Reason.CPU, "used more processor time than its block may")
        elif now.threads > self.limits.processes:
            self._stop(Reason.PROCESSES, f"had more than {self.limits.processes} processes and threads")
        return min(max(room / _FILL, _LOOK_S[0]), _LOOK_S[1])

    def _usage(self) -> usage.Usage:
        if self.group is not None:
            now = self.group.usage()
        else:
            now = usage.of_tree(self.site.proc, self.init, self.site.resident, self.site.isolated)
        self.peak = max(self.peak, now.memory)
        self.cpu_s = max(self.cpu_s, now.cpu_s)
        return now

    def _stop(self, cause: Reason, detail: str) -> None:
        if self.cause is None:
            self.cause, self.detail = cause, detail

    def _kill(self) -> None:
        """The death of a PID namespace's init is the death of all in it; without one, hunt until none is left."""
        if not self.site.isolated:
            usage.kill_below(self.site.proc, self.init)
        with contextlib.suppress(OSError):
            self._usage()  # the last, of what never was looked at too
        os.kill(self.init, signal.SIGKILL)
        os.waitpid(self.init, 0)

    def _drain(self, descriptor: int) -> None:
        room = self.limits.output_bytes - len(self.written[descriptor])
        os.set_blocking(descriptor, False)
        with contextlib.suppress(BlockingIOError):
            while room > 0 and (part := os.read(descriptor, min(room, 1 << 16))):
                self.written[descriptor] += part
                room -= len(part)

    def outcome(self) -> bytes:
        """One line of JSON (an Outcome without its texts, and their lengths), then standard output and error."""
        out = bytes(self.written[self.out][: self.limits.output_bytes])
        err = bytes(self.written[self.err][: self.limits.output_bytes - len(out)])
        head = {"wall_s": time.monotonic() - self.started, "out": len(out), "err": len(err), **self._judge(err)}
        head |= {"cpu_s": self.cpu_s, "memory_mib": self.peak / (1 << 20)}
        return json.dumps(head).encode() + b"\n" + out + err

    def _judge(self, err: bytes) -> dict[str, Any]:
        verdict = self.written[self.verdict].decode(errors="replace")
        if self.cause is None and self.group is not None and self.group.out_of_memory():
            return {"reason": Reason.MEMORY, "detail": f"its processes held more than {self.limits.memory_mib} MiB"}
        if verdict.startswith("setup "):
            return {"lost": verdict[6:]}
        if self.cause is not None:
            return {"reason": self.cause, "detail": self.detail}
        if not verdict:  # nothing inside can kill the init
            return {"lost": "something on the host killed it (out of memory?)"}
        status = int(verdict)
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            reason = Reason.CPU if number == signal.SIGXCPU else Reason.KILLED
            return {"reason": reason, "signal": number, "detail": f"ended by signal {number}"}
        code = os.WEXITSTATUS(status)
        reason = Reason.ERROR if code else Reason.OK
        if code and err.rstrip().rpartition(b"\n")[2].startswith(b"MemoryError"):
            reason = Reason.MEMORY
        return {"reason": reason, "exit_code": code}
