"""Where puzzle answers stand in a text, and how a task's columns are asked for. Shared by countdown, sudoku and code.

Left out: mathematics, which has marks of its own (``math_judge``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rlpost.reward.score import RewardError

_CLOSED = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)


def last_answer(text: str) -> str | None:
    """What the last ``<answer>...</answer>`` holds, stripped; None where there is none."""
    found = None
    for match in _CLOSED.finditer(text):
        found = match[1].strip()
    return found


def column(task: Mapping[str, Any], *names: str) -> Any:
    """The first of these columns that the task has.

    Raises:
        RewardError: it has none of them.
    """
    for name in names:
        if name in task:
            return task[name]
    wanted = "' or '".join(names)
    raise RewardError(f"the task has no column '{wanted}'; it has: {', '.join(task) or 'none'}")
