"""``sandbox: unsafe`` of a recipe or an evaluation, put into force and said aloud, before anything starts.

Left out: isolation itself (reward/sandbox).
"""

from __future__ import annotations

from collections.abc import Callable

from rlpost.reward.sandbox import allow_unsafe, isolation_problem


def put_in_force(sandbox: str, note: Callable[[str], None]) -> None:
    """Let this process and its children go without isolation where ``sandbox`` is "unsafe", and say so. Processes on
    other nodes need the variables of ``reward.sandbox.ALLOWED``."""
    if sandbox != "unsafe":
        return
    allow_unsafe()
    problem = isolation_problem()
    if problem:
        note(
            "sandbox: unsafe. CODE THAT THE MODEL WRITES RUNS WITHOUT ISOLATION: with your rights, on your files and "
            f"your network. {problem}"
        )
    else:
        note("sandbox: unsafe is not needed here: this host isolates programs, and does so all the same")
