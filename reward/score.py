"""What an episode is worth: the one record every verifier and environment returns.

Left out on purpose: any notion of tasks, tokens or models. A score is a number with an explanation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])


class RewardError(ValueError):
    """A reward function raised, or returned something that is not a finite number."""


@dataclass(frozen=True, slots=True)
class Score:
    """The outcome of one episode.

    Attributes:
        reward: the scalar that training maximises; must be finite.
        parts: named contributions shown in the rollout log, e.g. ``{"format": 0.1}``.
        success: whether the task was solved. ``None`` means "reward >= 1".
        answer: what the text was taken to answer, where that is a thing that answers can agree on (a majority vote
            counts these); empty where there is none.

    Raises:
        RewardError: ``reward`` is NaN or infinite.
    """

    reward: float
    parts: dict[str, float] = field(default_factory=dict)
    success: bool | None = None
    answer: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.reward):
            raise RewardError(f"the reward is {self.reward}, which is not a finite number")

    @property
    def solved(self) -> bool:
        """Whether the task counts as solved."""
        return self.reward >= 1.0 if self.success is None else self.success


def checked_by(check: Callable[[Sequence[Mapping[str, Any]]], None]) -> Callable[[_Function], _Function]:
    """Marks a reward function with a check of all rows, which is made before training starts; the check raises
    RewardError for rows by which the function could not judge."""

    def mark(function: _Function) -> _Function:
        function.check = check  # type: ignore[attr-defined]
        return function

    return mark
