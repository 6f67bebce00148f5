"""Whether ``rlpost doctor`` finds that model-written code can be isolated here. Left out: how (reward/sandbox)."""

from __future__ import annotations

from rlpost.checks.finding import Finding
from rlpost.reward.sandbox import accounting, isolation, isolation_problem


def check_isolation() -> list[Finding]:
    """Isolate one program for real and report; a note where it fails, since only code rewards and worlds need it."""
    mechanism = isolation()
    first = judge_isolation(mechanism, isolation_problem())
    return [first, judge_accounting(accounting())] if mechanism else [first]


def judge_isolation(mechanism: str | None, why_not: str) -> Finding:
    """A recipe that runs model-written code is refused where there is no isolation."""
    wanted = "isolation, for recipes that run model-written code"
    if mechanism:
        return Finding("sandbox", mechanism, wanted)
    return Finding("sandbox", "none", wanted, "note", f"Such recipes are refused here: {why_not}")


def judge_accounting(who: str) -> Finding:
    """Without cgroups all limits hold too, some of them by refusing what cannot be counted."""
    name, wanted = "sandbox limits", "cgroup v2, which counts all of it"
    if who.startswith("cgroup"):
        return Finding(name, who, wanted)
    advice = (
        "Memory, processor time and processes hold within 10 % and 16 MiB: address space and files are the kernel's to "
        "bound, the rest is looked at. Pipes and sockets count as full, 64 files may be open in a process, and calls "
        "that move pages into pipes, hand sockets on, enlarge buffers or ignore the death of children are refused. Not "
        "counted: the kernel's tables of memory maps (at most 13 MiB a process). For cgroup v2 start as a user whom "
        "systemd gave a group, or make one with the controllers memory and pids and name it in RLPOST_CGROUP."
    )
    return Finding(name, who, wanted, "note", advice)
