"""A stateful Python shell in a child process, which can ask its parent.

Left out: several callers at once (one thread drives a session), and saving a session's state.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from rlpost.reward.sandbox import launcher, wire
from rlpost.reward.sandbox.isolation import choose
from rlpost.reward.sandbox.limits import Limits, Outcome, Reason, SandboxError

_GRACE_S = 1.0  # a block that swallows its interruption is killed this long after it
_SETUP_S = 60.0
_LONGEST_CHARACTER = 12  # bytes of JSON that one character of output may take
_A_CALL = 512  # bytes that a call is counted for beyond its text, about what a small one takes here
Callback = Callable[[str, dict[str, Any]], Any]


class CallError(Exception):
    """Raised by a callback to answer a ``call`` with an error: the shell's code sees the message as an exception."""


class _CallbackFailed(Exception):
    """Carries a callback's own exception past the handlers of the channel's."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class Session:
    """A Python shell that keeps its globals from one block to the next; isolated like ``run``.

    Inside, ``call(name, **kwargs)`` sends JSON to ``callback(name, kwargs)`` here, which runs in the thread that
    called ``execute``, and returns what it answers (plain JSON).

    Args:
        limits: bounds; ``wall_s`` and ``output_bytes`` for each block, the others for the session.
        callback: what answers ``call``; without one every call is an error inside.
        packages: as for ``run``.
        unsafe: as for ``run``.

    Raises:
        SandboxUnavailable, SandboxError, ModuleNotFoundError: as ``run``.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        callback: Callback | None = None,
        *,
        packages: Sequence[str] = (),
        unsafe: bool = False,
    ) -> None:
        self.limits = limits or Limits()
        self._callback = callback
        self._channel, self._report = launcher.launch(True, self.limits, packages, choose(unsafe))
        self._deadline = 0.0
        self._bounded = False
        self._end: Outcome | None = None
        self._channel.settimeout(_SETUP_S)
        try:
            wire.receive(self._channel, 100)  # the shell is ready
        except (wire.WireError, OSError) as error:
            raise SandboxError(
                f"the shell did not start: {self._finish(Outcome(Reason.KILLED, detail=str(error)))}"
            ) from None

    @property
    def alive(self) -> bool:
        """Whether another block can be executed; false too once its keeper was killed from outside."""
        if self._end is not None:
            return False
        poller = select.poll()
        poller.register(self._report, select.POLLIN)
        return not poller.poll(0)  # between blocks a keeper only says that all is over

    def execute(
        self,
        code: str,
        wall_s: float | None = None,
        callback: Callback | None = None,
        cpu_s: float | None = None,
    ) -> Outcome:
        """Run one block.

        After an exception, ``sys.exit`` or an interrupted overrun of time the session lives on with its globals; after
        ``os._exit``, a crash or a broken session limit it is dead, and every further block gets that outcome again.

        Args:
            code: Python text.
            wall_s: seconds for this block; ``limits.wall_s`` where None. Callbacks count, but are never killed for.
            callback: answers this block's calls; the session's own where None.
            cpu_s: seconds of processor time for this block, which a busy machine does not change; where None, what is
                left of ``limits.cpu_s``.

        Raises:
            SandboxError: the sandbox itself failed.
            Exception: whatever the callback raises, but for CallError; the session is closed then.
        """
        if self._end is not None:
            return self._end
        wall_s = self.limits.wall_s if wall_s is None else wall_s
        started = time.monotonic()
        self._deadline = started + wall_s + _GRACE_S
        try:
            self._allow(cpu_s)
            block = {"run": code, "wall_s": wall_s, "cpu_s": cpu_s or 0.0}
            done = self._converse(block, callback or self._callback)
            return self._outcome(done, block, time.monotonic() - started)
        except TimeoutError:
            return self._finish(Outcome(Reason.TIMEOUT, detail=f"a block did not stop after {wall_s:g} s"))
        except wire.TooLarge as error:
            return self._finish(Outcome(Reason.OUTPUT, detail=str(error)))
        except (wire.WireError, OSError) as error:
            return self._finish(Outcome(Reason.KILLED, detail=str(error)))
        except _CallbackFailed as failure:
            self.close()
            raise failure.error from None
        except BaseException:
            self.close()
            raise

    def _allow(self, cpu_s: float | None) -> None:
        """Have the keeper bound the next block's processor time, or lift the bound of the last block."""
        if cpu_s is not None or self._bounded:
            self._report.sendall(f"{math.inf if cpu_s is None else cpu_s + _GRACE_S}\n".encode())
        self._bounded = cpu_s is not None

    def _converse(self, message: dict[str, Any], callback: Callback | None) -> dict[str, Any]:
        """Send, and answer calls until the block is done."""
        room, result = self.limits.call_bytes, _LONGEST_CHARACTER * self.limits.output_bytes + (1 << 16)
        while True:
            self._channel.settimeout(max(0.001, self._deadline - time.monotonic()))
            wire.send(self._channel, message)
            reply, size = wire.receive(self._channel, max(room, result))
            if isinstance(reply.get("done"), dict):
                return reply["done"]
            room -= size + _A_CALL
            if room < 0:
                raise wire.TooLarge(f"its calls sent more than {self.limits.call_bytes} bytes")
            asked = time.monotonic()
            message = _answer(reply, callback)
            self._deadline += time.monotonic() - asked

    def _outcome(self, said: dict[str, Any], block: dict[str, Any], wall_s: float) -> Outcome:
        """The shell's own words, checked: the program shares its process and may have written them."""
        out, err, exit_code = said.get("stdout"), said.get("stderr"), said.get("exit_code")
        try:
            reason = Reason(str(said.get("reason")))
        except ValueError:
            raise wire.WireError("the shell sent an unknown reason") from None
        if not isinstance(out, str) or not isinstance(err, str) or not isinstance(exit_code, int | None):
            raise wire.WireError("the shell sent a malformed result")
        room = self.limits.output_bytes
        details = {
            Reason.TIMEOUT: f"still running after {block['wall_s']:g} s",
            Reason.CPU: f"used more than {block['cpu_s']:g} s of processor time",
            Reason.OUTPUT: f"wrote more than {room} bytes",
        }
        return Outcome(reason, out[:room], err[:room], exit_code, None, wall_s, details.get(reason, ""))

    def _finish(self, seen: Outcome) -> Outcome:
        """The session is over: have everything of it killed, and learn from its keeper what happened."""
        self._end = seen
        with self._channel, self._report:
            if seen.reason is Reason.KILLED:
                self._report.settimeout(_GRACE_S)  # where the process is dead, its keeper is about to say so
                with contextlib.suppress(OSError):
                    self._report.recv(1, socket.MSG_PEEK)
            with contextlib.suppress(OSError):
                self._report.shutdown(socket.SHUT_WR)  # tells the keeper to kill
            told = launcher.collect(self._report, _SETUP_S)
        if told.ok:  # no block ends well that takes the shell with it
            told = replace(told, reason=Reason.ERROR, detail="the shell was left in the middle of a block")
        elif told.reason is Reason.KILLED and told.signal is None:  # by us
            told = replace(told, reason=seen.reason, detail=seen.detail)
        self._end = told
        return told

    def close(self) -> None:
        """End the session and every process of it; may be called again."""
        if self._end is None:
            self._end = Outcome(Reason.KILLED, detail="the session is closed")
            self._channel.close()
            self._report.close()  # tells the keeper to kill

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _answer(message: dict[str, Any], callback: Callback | None) -> dict[str, Any]:
    name, kwargs = message.get("call"), message.get("kwargs")
    if not isinstance(name, str) or not isinstance(kwargs, dict):
        raise wire.WireError("the shell sent what is neither a result nor a call")
    if callback is None:
        return {"fault": f"nothing answers the call '{name}'"}
    try:
        return {"answer": callback(name, kwargs)}
    except CallError as error:
        return {"fault": str(error)}
    except Exception as error:
        raise _CallbackFailed(error) from error
