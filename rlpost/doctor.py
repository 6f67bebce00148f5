"""``rlpost doctor``: what is installed on this machine, what it supports, and what to do where they disagree.

Runs the checks of rlpost/checks and shows what they found. A check that itself fails is a note, never a traceback.
Left out: repairing anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rlpost.checks.finding import Finding
from rlpost.checks.isolation import check_isolation
from rlpost.checks.machine import check_gpus, check_machine
from rlpost.checks.packages import check_engine, check_ranges

__all__ = ["CHECKS", "Finding", "diagnose", "print_report"]

Check = Callable[[], list[Finding]]
CHECKS: dict[str, Check] = {
    "machine": check_machine,
    "GPUs": check_gpus,
    "engine": check_engine,
    "versions": check_ranges,
    "sandbox": check_isolation,
}
"""One function a subject; an environment with needs of its own adds its check here."""

STYLE = {"ok": "green", "note": "yellow", "problem": "bold red"}


def diagnose(checks: dict[str, Check] | None = None) -> list[Finding]:
    """Run all checks, a few seconds; neither torch nor vllm is imported."""
    findings: list[Finding] = []
    for name, check in (CHECKS if checks is None else checks).items():
        try:
            findings += check()
        except Exception as error:
            advice = "this check is of no use here; the others stand"
            findings.append(Finding(name, f"{type(error).__name__}: {error}", "could not be checked", "note", advice))
    return findings


def print_report(findings: Sequence[Finding], console: Console | None = None) -> int:
    """Show findings as a table and then, one a paragraph, what to do.

    Returns:
        The exit code: 1 if there is a problem, else 0.
    """
    console = console or Console()
    table = Table("", "", "found", "wanted", box=None, pad_edge=False, header_style="dim")
    for finding in findings:
        mark = f"[{STYLE[finding.level]}]{finding.level}[/]"
        table.add_row(mark, escape(finding.name), escape(finding.found), escape(finding.wanted))
    console.print(table)
    for finding in findings:
        if finding.advice:
            headline = f"[{STYLE[finding.level]}]{finding.level}: {escape(finding.name)}[/]"
            console.print(f"\n{headline}\n{escape(finding.advice)}", highlight=False)
    levels = [finding.level for finding in findings]
    console.print(f"\nproblems: {levels.count('problem')}, notes: {levels.count('note')}", highlight=False)
    return 1 if "problem" in levels else 0
