"""The shell a solver's code runs in: a sandbox session whose calls come back here, to the world.

Everything that decides an episode (database, tests, answer) is on this side. Left out: what runs inside (inside.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlpost.envs.errands.inside import FAILED
from rlpost.reward.sandbox import Limits, Outcome, Reason, Session

FAILURE = "Execution failed. Traceback:\n"
SUCCESS = "Execution successful."
NO_CODE = "No code available to execute."
_INSIDE = Path(__file__).with_name("inside.py").read_text()
_PRELUDE = f"""
__inside__ = {{"__name__": "inside"}}
exec(compile({_INSIDE!r}, "<inside>", "exec"), __inside__)
__run__ = __inside__.pop("install")(call, globals())
del __inside__
"""
_PRELUDE_S = 60.0
_SHOWN = 2000
"""Characters shown of what a block printed that printed too much."""
_TOO_MANY_CALLS = (
    "Number of requests exceeded the limit of {}. This potentially means that you have an infinite loop in your code."
)
_LIMITS = {
    Reason.MEMORY: "MemoryError",
    Reason.CPU: "Execution used up the processor time of its shell.",
    Reason.PROCESSES: "Execution started too many processes.",
    Reason.OUTPUT: "Execution printed too much.",
}

Ask = Callable[[str, dict[str, Any]], dict[str, Any]]


class Shell:
    """A stateful shell; its process starts with the first block.

    Args:
        ask: answers the calls of the code, see ``inside.install``.
        timeout_s: seconds a block may take.
        calls: API calls a block may make.
        unsafe: run without isolation where the host gives none.

    Attributes:
        died: why the shell is gone (it cannot be used any more), or empty.
    """

    def __init__(self, ask: Ask, timeout_s: float, calls: int, unsafe: bool) -> None:
        self._ask = ask
        self._timeout_s = timeout_s
        self._calls = calls
        self._left = calls
        self._unsafe = unsafe
        self._session: Session | None = None
        self._closed = False
        self.died = ""

    def execute(self, code: str) -> str:
        """Run a block; what the solver reads.

        Raises:
            SandboxUnavailable: the host gives no isolation, and not ``unsafe``.
            SandboxError: the sandbox itself failed.
        """
        code = code.strip()
        if not code:
            return NO_CODE
        if self.died or self._closed:
            return f"{FAILURE}The shell has ended: {self.died or 'it was closed'}."
        if self._session is None:
            self._session = self._start()
        self._left = self._calls
        # What is no text (a lone surrogate) cannot be sent, and is no Python either.
        sent = f"__run__({code.encode('utf-8', 'replace').decode()!r})"
        outcome = self._session.execute(sent, self._timeout_s)
        if not self._session.alive:
            self.died = str(outcome.reason)
        return self._message(outcome)

    def _message(self, outcome: Outcome) -> str:
        if outcome.ok:
            return outcome.stdout if outcome.stdout.strip() else SUCCESS
        if outcome.reason is Reason.TIMEOUT:
            return f"{FAILURE}Execution timed out after {self._timeout_s:g} seconds."
        if outcome.reason is Reason.OUTPUT and not self.died:
            return f"{FAILURE}{_LIMITS[Reason.OUTPUT]} It began with:\n{outcome.stdout[:_SHOWN]}"
        if outcome.exit_code == FAILED and not self.died:
            return FAILURE + outcome.stderr
        what = _LIMITS.get(outcome.reason) or outcome.stderr.strip() or f"The shell ended: {outcome.reason}."
        return FAILURE + what

    def _start(self) -> Session:
        """With little memory: 256 of these run at once."""
        limits = Limits(
            wall_s=self._timeout_s,
            cpu_s=max(60.0, self._timeout_s),
            memory_mib=128,
            processes=8,
            output_bytes=1 << 18,
            call_bytes=64 << 20,  # the world keeps none of them; a loop of calls runs into the clock instead
        )
        session = Session(limits, self._answer, unsafe=self._unsafe)
        outcome = session.execute(_PRELUDE, _PRELUDE_S)
        if not outcome.ok:
            session.close()
            raise RuntimeError(f"the shell of the world does not start: {outcome.stderr or outcome.reason}")
        return session

    def _answer(self, kind: str, details: dict[str, Any]) -> dict[str, Any]:
        if kind != "app":
            self._left -= 1
        if self._left < 0:
            return {"error": _TOO_MANY_CALLS.format(self._calls)}
        return self._ask(kind, details)

    def close(self) -> None:
        """End the shell and everything in it."""
        self._closed = True
        if self._session is not None:
            self._session.close()
