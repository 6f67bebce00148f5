"""From the verdict on an AppWorld-style task to a reward. Left out: what unfinished episodes get (appworld.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def share_of_tests(verdict: Mapping[str, Any]) -> float:
    """passed / (tests that doing nothing fails + other tests that failed), in [0, 1]: 0 for doing nothing, 1 only where
    every test passed. Tests without labels all count."""
    passed = sum(test.get("label") != "no_op_pass" for test in verdict["passes"])
    failed = len(verdict["failures"])
    return passed / (passed + failed) if passed + failed else 0.0
