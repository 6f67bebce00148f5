"""What a world's shell begins with. It runs inside the sandbox, as the first block of a session, and sets up ``apis``,
``requester``, ``print``, ``input`` and the way a block is run.

Nothing here protects anything: the sandbox does, and the world is on its other side, behind ``call``. The names that
are refused below are refused for the sake of AppWorld's wording. Left out: imports from this repository, which is not
to be seen from inside.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import json
import traceback
from collections.abc import Callable
from typing import Any

FILE = "<python-input>"
FAILED = 3
"""Exit status of a block that failed; its message is on standard error."""
REFUSED = ("builtins.open", "builtins.exit", "builtins.quit", "builtins.breakpoint", "sys.exit", "time.sleep")
REFUSED_MODULES = ("os", "subprocess", "shutil", "socket", "ctypes", "signal")


class _Void:
    """Standard error of a block is not shown."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def install(call: Callable[..., Any], namespace: dict[str, Any]) -> Callable[[str], None]:
    """Put the names a block may use into ``namespace``; returns what runs a block.

    Args:
        call: asks the world: ``call("api", app=..., api=..., arguments=...)`` or
            ``call("http", method=..., url=..., arguments=...)``; answers ``{"ok": ...}`` or ``{"error": words}``.
        namespace: the shell's globals.
    """

    def ask(kind: str, **details: Any) -> Any:
        reply = call(kind, **details)
        if "error" in reply:
            raise Exception(reply["error"])
        return reply["ok"]

    namespace.update(apis=_Apis(ask), requester=_Requester(ask), print=_print, input=_input)

    def run(code: str) -> None:
        with contextlib.redirect_stderr(_Void()):  # type: ignore[type-var]
            message = _run(code, namespace)
        if message is not None:
            import sys

            sys.stderr.write(message)
            raise SystemExit(FAILED)

    return run


class _Apis:
    def __init__(self, ask: Callable[..., Any]) -> None:
        self._ask = ask

    def __getattr__(self, app: str) -> _App:
        if app.startswith("_"):
            raise AttributeError(app)
        self._ask("app", app=app)
        return _App(self._ask, app)


class _App:
    def __init__(self, ask: Callable[..., Any], name: str) -> None:
        self._ask, self._name = ask, name

    def __getattr__(self, api: str) -> Callable[..., Any]:
        if api.startswith("_"):
            raise AttributeError(api)

        def function(**arguments: Any) -> Any:
            return self._ask("api", app=self._name, api=api, arguments=arguments)

        return function


class _Requester:
    def __init__(self, ask: Callable[..., Any]) -> None:
        self._ask = ask

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method not in ("get", "post", "put", "patch", "delete"):
            raise AttributeError(method)

        def function(url: str, data: dict[str, Any] | None = None) -> Any:
            return self._ask("http", method=method, url=url, arguments=data or {})

        return function


def _print(*values: Any, **options: Any) -> None:
    if not options and len(values) == 1 and isinstance(values[0], list | tuple | dict):
        short = json.dumps(values[0])
        builtins.print(json.dumps(values[0], indent=1) if len(short) >= 100 else short)
    else:
        builtins.print(*values, **options)


def _input(*_: Any) -> None:
    raise Exception("input(..) is not allowed. All decisions must be made autonomously.")


def _run(code: str, namespace: dict[str, Any]) -> str | None:
    """Run a block; what went wrong, or None."""
    try:
        tree = ast.parse(code)
        refused = sorted(_refused(tree))
        if refused:
            word = "function" if len(refused) == 1 else "functions"
            return f"Usage of the following {word} is not allowed: {', '.join(refused)}."
        exec(compile(tree, FILE, "exec", dont_inherit=True), namespace)
    except SyntaxError as error:
        if error.filename == FILE or error.filename == "<unknown>":
            return f"Syntax error in line:\n{(error.text or '').rstrip()}\nMessage: {error.msg}"
        return _explain(error, code)
    except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        return _explain(error, code)
    return None


def _explain(error: BaseException, code: str) -> str:
    lines = code.splitlines()
    said = []
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == FILE and frame.lineno is not None:
            said.append(f'  File "{FILE}", line {frame.lineno}, in {frame.name}')
            if 0 < frame.lineno <= len(lines):
                said.append(f"    {lines[frame.lineno - 1].strip()}")
    last = traceback.format_exception_only(error)
    return "\n".join([*said, *[line.rstrip("\n") for line in last]])


def _refused(tree: ast.AST) -> set[str]:
    """Calls, by their plain names, that AppWorld refuses too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func) if isinstance(node.func, ast.Name | ast.Attribute) else ""
            full = name if "." in name else f"builtins.{name}"
            if full in REFUSED or full.split(".")[0] in REFUSED_MODULES:
                found.add(name)
    return found
