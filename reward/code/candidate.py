"""The program's side: it runs the program, and then does with its objects what the tests' side asks for.

It shares its process with the program, so nothing it says is believed: it can only hand over values, and wrong ones
fail the tests. Runs in a sandbox session; imports nothing of ours but ``peer``. Left out: the tests, and programs that
read standard input (``stdio``).
"""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import linecache
import sys
import types
from collections.abc import Callable
from typing import Any

from rlpost.reward.code.peer import Peer
from rlpost.reward.code.values import PLAIN

_FILE = "<program>"
_ROOM = 1 << 20
_program = types.ModuleType("solution")


def load(text: str) -> None:
    """Run the program; its ``if __name__ == "__main__"`` part does not, as it is imported, not started."""
    sys.modules["solution"] = _program
    linecache.cache[_FILE] = (len(text), None, text.splitlines(keepends=True), _FILE)
    try:
        exec(compile(text, _FILE, "exec", dont_inherit=True), _program.__dict__)
    except SystemExit as error:
        raise RuntimeError("the program left before the tests") from error


def serve(call: Callable[..., Any], settings: dict[str, Any]) -> None:
    """Answer until the tests' side says no more."""
    classes = {name: vars(_program).get(name) for name in settings["classes"]}
    shared = {name: kind for name, kind in classes.items() if isinstance(kind, type)}
    lasting, packages = settings["lasting"], tuple(settings["packages"])
    peer = _Candidate(lambda text: str(call("say", text=text)), 1, shared, lasting, packages)
    if settings["input"]:
        peer.take_over_input()
    message = call("say", text="")
    while True:
        message = call("say", text=peer.answer(json.loads(message)))


class _Output(io.StringIO):
    """What one answer prints."""

    def write(self, text: str) -> int:
        if self.tell() + len(text) > _ROOM:
            raise MemoryError(f"the program printed more than {_ROOM} characters in one call")
        return super().write(text)


class _Candidate(Peer):
    """Does all that it is asked, and passes on what was printed."""

    printed = ""

    def do(self, what: str, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        """Do one thing."""
        with contextlib.redirect_stdout(_Output()) as out:
            try:
                return super().do(what, arguments, keywords)
            finally:
                self.printed += out.getvalue()

    def ask(self, do: str, *arguments: Any, **keywords: Any) -> Any:
        """The same, with what was printed so far shown before it."""
        self.printed += sys.stdout.getvalue() if isinstance(sys.stdout, _Output) else ""
        if isinstance(sys.stdout, _Output):
            sys.stdout.seek(0)
            sys.stdout.truncate()
        return super().ask(do, *arguments, **keywords)

    def _packed(self, message: dict[str, Any], values: list[Any]) -> str:
        printed, self.printed = self.printed, ""
        return super()._packed({**message, "out": printed} if printed else message, values)

    def take_over_input(self) -> None:
        """Let the program read what the tests put into ``input`` or standard input."""
        builtins.input = lambda prompt="": self.ask("input", str(prompt))
        sys.stdin = _Input(self)

    def _do_call(self, function: Any, /, *arguments: Any, **keywords: Any) -> Any:
        """A class that the tests call gives them an object, also where it derives from a plain value's."""
        if isinstance(function, type) and function.__module__ == "solution" and issubclass(function, PLAIN):
            self._codec.keep_whole(function)
        return function(*arguments, **keywords)

    def _do_name(self, name: str) -> Any:
        if name not in _program.__dict__:
            raise NameError(f"name '{name}' is not defined")
        return _program.__dict__[name]

    def _do_path(self, path: str) -> Any:
        """What an entry point such as ``Solution().twoSum`` stands for."""
        return eval(path, _program.__dict__)

    def _do_names(self) -> list[str]:
        names = [name for name in vars(_program) if not name.startswith("_") and not hasattr(builtins, name)]
        return [name for name in names if not isinstance(vars(_program)[name], types.ModuleType)]

    def _do_module(self) -> Any:
        return _program


class _Input(io.TextIOBase):
    """Standard input, as the tests have set it."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def read(self, size: int | None = -1) -> str:
        return str(self._peer.ask("read", -1 if size is None else size))

    def readline(self, size: int | None = -1) -> str:  # type: ignore[override]
        return str(self._peer.ask("read line"))
