"""Reference answers as data sets bring them: texts, numbers, lists of accepted ones; what is none is refused.

Left out: what a text means (``values``), and whether it can be read, which the judging child says (``judge.problem``).
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

from rlpost.reward.score import RewardError

_NOTHING = frozenset({"", "none", "nan", "null", "n/a", "<na>", "[]", "{}"})
_MOST_ACCEPTED = 50


def references_of(task: Mapping[str, Any], *columns: str) -> tuple[str, ...]:
    """The accepted answers in the first of these columns that has any.

    Raises:
        RewardError: no such column, or nothing in any of them that is an answer.
    """
    present = [name for name in columns if name in task]
    if not present:
        wanted = "' or '".join(columns)
        raise RewardError(f"the task has no column '{wanted}'; it has: {', '.join(map(str, task)) or 'none'}")
    for name in present:
        if not _is_empty(task[name]):
            return accepted(task[name], f"column '{name}'")
    shown = ", ".join(f"'{name}' is {task[name]!r}" for name in present)
    raise RewardError(f"the reference answer is empty: column {shown}")


def accepted(value: Any, where: str = "the reference") -> tuple[str, ...]:
    """The texts of one reference: one, or of a list each, any of which is accepted.

    Raises:
        RewardError: it is empty, None, NaN, a mapping, or of another type that is no answer.
    """
    value = _plain(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        if not value or len(value) > _MOST_ACCEPTED:
            raise RewardError(f"{where} holds {len(value)} accepted answers; 1 to {_MOST_ACCEPTED} are wanted")
        members = [text for member in value for text in accepted(member, f"a member of {where}")]
        return tuple(dict.fromkeys(members))
    if _is_empty(value):
        raise RewardError(f"the reference answer is empty: {where} is {value!r}")
    if isinstance(value, str):
        return (value.strip(),)
    if isinstance(value, bool):
        return (str(value),)
    if isinstance(value, float) and not math.isfinite(value):
        raise RewardError(f"{where} is {value!r}, which is no answer")
    if isinstance(value, numbers.Number) or type(value).__name__ == "Decimal":
        whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
        return (str(int(value)) if whole else str(value),)  # type: ignore[call-overload]
    raise RewardError(
        f"{where} is a {type(value).__name__}, which is no answer: {value!r:.80}. A text, a number or a list of "
        "accepted ones is wanted"
    )


def _plain(value: Any) -> Any:
    """NumPy's scalars and arrays as Python's own."""
    return value.tolist() if type(value).__module__ == "numpy" and hasattr(value, "tolist") else value


def _is_empty(value: Any) -> bool:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, str) and value.strip().lower() in _NOTHING
