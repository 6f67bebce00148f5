"""What the progress display prints, in a terminal and without one."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
from rich.console import Console

from rlpost.progress import Progress


def row(step: int, **changes: Any) -> dict[str, Any]:
    """A step of half a second."""
    return {
        "step": step,
        "reward/mean": 0.5,
        "success/mean": 0.25,
        "tokens/rollout": 1000,
        "time/step_s": 0.5,
        **changes,
    }


def plain() -> tuple[io.StringIO, Console]:
    """A console that is no terminal."""
    stream = io.StringIO()
    return stream, Console(file=stream, width=40)


def test_one_line_a_step_without_a_terminal() -> None:
    stream, console = plain()
    with Progress(total_steps=12, console=console) as progress:
        progress.step(row(0))
        progress.step(row(1, **{"reward/mean": None, "tokens/rollout": 2500}))
    assert stream.getvalue().splitlines() == [
        "step 1/12  reward 0.500  success 25.0%  2,000 tok/s  0.50 s/step  eta 5.5 s",
        "step 2/12  reward -  success 25.0%  5,000 tok/s  0.50 s/step  eta 5.0 s",
    ]


def test_phases_are_printed_once_though_they_count() -> None:
    stream, console = plain()
    with Progress(total_steps=12, console=console) as progress:
        progress.phase("starting engine")
        for done in range(0, 200, 40):
            progress.phase(f"warm start {done}/200")
        progress.note("[worker 0] was restarted: ~/a[b].py")
        progress.phase("evaluating")
    assert stream.getvalue().splitlines() == [
        "starting engine",
        "warm start 0/200",
        "[worker 0] was restarted: ~/a[b].py",
        "evaluating",
    ]


def test_the_time_left_follows_the_latest_steps() -> None:
    _, console = plain()
    progress = Progress(total_steps=40, console=console)
    assert progress.eta_s is None
    for step in range(20):
        progress.step(row(step, **{"time/step_s": 8.0 if step < 10 else 2.0}))
    assert progress.eta_s == pytest.approx(20 * 2.0)
    progress.step(row(39))
    assert progress.eta_s == 0.0


def test_a_resumed_run_counts_on() -> None:
    stream, console = plain()
    with Progress(total_steps=10, console=console) as progress:
        progress.step(row(7))
    assert stream.getvalue().startswith("step 8/10 ")


def test_numbers_that_are_missing() -> None:
    stream, console = plain()
    with Progress(total_steps=1, console=console) as progress:
        progress.step({"step": 0, "reward/mean": math.nan, "time/step_s": 61.0})
    assert stream.getvalue() == "step 1/1  reward -  success -  - tok/s  1 min 01 s/step  eta 0.0 s\n"


def test_one_live_display_in_a_terminal() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, height=30, color_system=None, legacy_windows=False)
    with Progress(total_steps=12, console=console) as progress:
        progress.phase("warm start 40/200")
        progress.step(row(0, **{"success/mean": 0.0}))
        progress.step(row(1, **{"success/mean": 1.0}))
        progress.phase("evaluating")
        progress.note("a worker was restarted")
    shown = stream.getvalue()
    assert "step 2/12" in shown
    assert "▁█" in shown
    assert "reward 0.500   success 100.0%   2,000 tok/s   0.50 s/step   eta 5.0 s" in shown
    assert "a worker was restarted\n" in shown
    assert "\x1b[?25l" in shown  # the cursor is hidden while it runs ...
    assert shown.rstrip().endswith("\x1b[?25h")  # ... and comes back
