"""Whether ``rlpost doctor`` finds that model-written code can be isolated here. Left out: how (reward/sandbox)."""

from __future__ import annotations

from rlpost.checks.finding import Finding
from rlpost.reward.sandbox import isolation, isolation_problem


def check_isolation() -> list[Finding]:
    """Isolate one program for real and report; a note where it fails, since only code rewards and worlds need it."""
    return [judge_isolation(isolation(), isolation_problem())]


def judge_isolation(mechanism: str | None, why_not: str) -> Finding:
    """A recipe that runs model-written code is refused where there is no isolation."""
    wanted = "isolation, for recipes that run model-written code"
    if mechanism:
        return Finding("sandbox", mechanism, wanted)
    return Finding("sandbox", "none", wanted, "note", f"Such recipes are refused here: {why_not}")
