"""All scenarios, by name, in the order of their difficulty."""

from __future__ import annotations

from rlpost.envs.errands.scenarios import easy, hard, medium
from rlpost.envs.errands.scenarios.base import SCENARIOS, Plan, Scenario

__all__ = ["SCENARIOS", "Plan", "Scenario", "easy", "hard", "medium"]
