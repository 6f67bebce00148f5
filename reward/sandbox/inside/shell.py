"""A session's side of the channel: run code blocks one after another in one namespace, and ask the parent by ``call``.

A block that overruns its wall clock or its processor time is interrupted (``BlockTimeout``) and the session lives on;
one that will not be interrupted is killed from outside. Left out: echoing the value of a last expression; what is
printed is shown.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import os
import signal
import socket
import threading
import time
from typing import Any, NoReturn

from rlpost.reward.sandbox import wire
from rlpost.reward.sandbox.inside import program
from rlpost.reward.sandbox.limits import Limits, Reason

_REMEMBERED = 100  # blocks whose lines a traceback can show
_LONGEST_REMEMBERED = 1 << 16


class BlockTimeout(BaseException):
    """Raised inside a block whose time is up; no ``except Exception`` stops it."""


class OutputFull(BaseException):
    """Raised inside a block that wrote more than it may."""


class CallError(RuntimeError):
    """The parent answered a ``call`` with an error; the message is the parent's."""


def serve(channel: socket.socket, limits: Limits) -> NoReturn:
    """Run blocks until the parent closes the channel."""
    shell = _Shell(channel, limits)
    try:
        wire.send(channel, {"ready": True})
        while True:
            request, _ = wire.receive(channel)
            wire.send(channel, {"done": shell.block(request["run"], request["wall_s"], request["cpu_s"])})
    except (wire.WireError, OSError):
        os._exit(0)


class _Capture(io.StringIO):
    """Collects a block's output up to a number of characters shared with its twin."""

    def __init__(self, room: list[int]) -> None:
        super().__init__()
        self._room = room

    def write(self, text: str) -> int:
        super().write(text[: max(0, self._room[0])])
        self._room[0] -= len(text)
        if self._room[0] < 0:
            raise OutputFull
        return len(text)


class _Shell:
    def __init__(self, channel: socket.socket, limits: Limits) -> None:
        self.channel, self.limits = channel, limits
        self.namespace = program.fresh_main()
        self.namespace["call"] = self.call
        self.blocks = 0
        self.running = self.asking = False
        self.overdue: Reason | None = None
        self.turn = threading.Lock()

    def call(self, name: str, /, **kwargs: Any) -> Any:
        """Ask the parent; both ways plain JSON. Raises CallError with the parent's words."""
        with self.turn:
            if not self.running:
                raise CallError("no block is running")
            self.asking = threading.current_thread() is threading.main_thread()
            try:
                wire.send(self.channel, {"call": name, "kwargs": kwargs})
                answer, _ = wire.receive(self.channel)
            finally:
                self.asking = False
        if self.overdue and threading.current_thread() is threading.main_thread():
            raise BlockTimeout
        if "fault" in answer:
            raise CallError(answer["fault"])
        return answer["answer"]

    def block(self, code: str, wall_s: float, cpu_s: float) -> dict[str, Any]:
        """Run one block; what the parent shall know of it."""
        self.blocks += 1
        name = f"<block {self.blocks}>"
        program.remember_source(name, code if len(code) <= _LONGEST_REMEMBERED else "")
        linecache.cache.pop(f"<block {self.blocks - _REMEMBERED}>", None)
        room = [self.limits.output_bytes]
        out, err = _Capture(room), _Capture(room)
        started = time.monotonic()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            reason, exit_code = self._execute(code, name, wall_s, cpu_s)
        done = {"reason": reason, "exit_code": exit_code, "wall_s": time.monotonic() - started}
        return {**done, "stdout": out.getvalue(), "stderr": err.getvalue()}

    def _execute(self, code: str, name: str, wall_s: float, cpu_s: float) -> tuple[Reason, int | None]:
        try:
            try:
                self._start_clocks(wall_s, cpu_s)
                exec(compile(code, name, "exec", dont_inherit=True), self.namespace)
            finally:
                self._stop_clocks()
        except BlockTimeout:
            self._stop_clocks()  # it may have struck before the first call got to stop it
            return self.overdue or Reason.TIMEOUT, None
        except OutputFull:
            return Reason.OUTPUT, None
        except BaseException as error:
            return self._explain(error, name)
        return Reason.OK, 0

    def _explain(self, error: BaseException, name: str) -> tuple[Reason, int | None]:
        try:
            if isinstance(error, SystemExit):
                status = program.exit_status(error)
                return (Reason.ERROR if status else Reason.OK), status
            program.print_error(error, name)
        except OutputFull:
            return Reason.OUTPUT, None
        return (Reason.MEMORY if isinstance(error, MemoryError) else Reason.ERROR), 1

    def _start_clocks(self, wall_s: float, cpu_s: float) -> None:
        """Interrupt the block when its time is up, and again every 50 ms should it swallow that."""
        self.overdue, self.running = None, True
        clocks = {signal.SIGALRM: (signal.ITIMER_REAL, wall_s), signal.SIGPROF: (signal.ITIMER_PROF, cpu_s)}
        for number, (timer, seconds) in clocks.items():
            signal.signal(number, self._on_signal)
            signal.setitimer(timer, seconds, 0.05)

    def _stop_clocks(self) -> None:
        while self.running:
            try:
                self.running = False
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.setitimer(signal.ITIMER_PROF, 0)
            except BlockTimeout:
                continue
        with self.turn:  # a thread's call in flight: the channel must be quiet before the next block
            pass

    def _on_signal(self, number: int, _: Any) -> None:
        self.overdue = Reason.TIMEOUT if number == signal.SIGALRM else Reason.CPU
        if self.running and not self.asking:  # an answer on its way is taken first
            raise BlockTimeout
