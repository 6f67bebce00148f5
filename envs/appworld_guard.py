"""The real AppWorld's HTTP server, kept alive through what a solver's code raises: run by AppWorld's own Python.

AppWorld catches exceptions of a block of code but not ``KeyboardInterrupt``, ``SystemExit`` and their kin, which end
its server and so the episode. Here they become an exception of that block. Its text is handed to ``python -c``, so it
imports nothing of ours. Left out: everything else that AppWorld does.
"""

import sys
from typing import Any


def keep_alive(world: Any) -> None:
    """Patch AppWorld's class: what a block raised that is no ``Exception`` is wrapped in one."""
    run_cell = world._shell_run_cell

    def guarded(self: Any, code: str) -> Any:
        result = run_cell(self, code)
        error = getattr(result, "error_in_exec", None)
        if error is not None and not isinstance(error, Exception):
            words = f"{type(error).__name__}: {error}".removesuffix(": ")
            result.error_in_exec = Exception(words).with_traceback(error.__traceback__)
        return result

    world._shell_run_cell = guarded


if __name__ == "__main__":
    import uvicorn
    from appworld.environment import AppWorld

    if hasattr(AppWorld, "_shell_run_cell"):  # else another version, which may do without
        keep_alive(AppWorld)
    uvicorn.run("appworld.serve.environment:app", host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
