"""Running a program's text as ``__main__``, the way Python would run a file.

Left out: anything worth stealing. The only secrets in this process are the program's own.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import linecache
import os
import sys
import threading
import traceback
import types
from typing import Any, NoReturn

FILE = "<program>"
_exit = os._exit  # bound now: a program may replace it


def run(channel: int) -> NoReturn:
    """Read a program from a descriptor to its end, run it, and exit with its status."""
    with os.fdopen(channel, "rb") as source:
        text = source.read().decode()
    finish(_execute(text))


def finish(status: int) -> NoReturn:
    """End as the interpreter does: wait for threads, run exit handlers, flush."""
    for step in (threading._shutdown, atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush):  # type: ignore[attr-defined]
        with contextlib.suppress(Exception):
            step()
    _exit(status)


def remember_source(name: str, text: str) -> None:
    """Let tracebacks show the lines of a text that is no file."""
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)


def exit_status(error: SystemExit) -> int:
    """What Python makes of ``sys.exit(x)``: None is 0, an int itself, anything else is printed and 1."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def fresh_main() -> dict[str, Any]:
    """The namespace of a new, empty ``__main__``."""
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = main
    return main.__dict__


def print_error(error: BaseException, first_file: str) -> None:
    """Print a traceback on standard error, from the first frame in a file of that name on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != first_file:
        frames = frames.tb_next
    traceback.print_exception(type(error), error, frames, file=sys.stderr)


def _execute(text: str) -> int:
    remember_source(FILE, text)
    namespace = fresh_main()
    try:
        exec(compile(text, FILE, "exec", dont_inherit=True), namespace)
        return 0
    except SystemExit as error:
        return exit_status(error)
    except BaseException as error:
        print_error(error, FILE)
        return 1
