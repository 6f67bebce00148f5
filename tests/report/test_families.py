"""Charts and progress of keys that are known by their prefix: all source weights are in one chart."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from rlpost.progress import Progress
from rlpost.report.curves import curves


def rows() -> list[dict[str, Any]]:
    return [
        {
            "step": step,
            "loss": 1.5 - step,
            "weight/clean": 0.5 + step / 4,
            "weight/dots": 0.5 - step / 4,
            "delta/clean": -0.1,
        }
        for step in range(2)
    ]


def test_all_weights_are_one_stacked_chart_at_the_head() -> None:
    drawn = curves(rows())
    (chart,) = [one for one in drawn["charts"] if one["title"] == "Source weights"]
    assert [tuple(pair) for pair in chart["series"]] == [("weight/clean", "clean"), ("weight/dots", "dots")]
    assert (chart["form"], chart["unit"], chart["main"]) == ("stack", "share", True)
    assert [one["title"] for one in drawn["more"]] == ["Loss of w minus loss of u"]


def test_a_run_without_sources_has_no_such_chart() -> None:
    drawn = curves([{"step": 0, "stop/done": 3, "other": 1.0}])
    assert [one["title"] for one in drawn["charts"]] == []
    assert [one["title"] for one in drawn["more"]] == ["Stop reasons", "other"]


def test_progress_shows_the_heaviest_source() -> None:
    text = io.StringIO()
    with Progress(total_steps=2, console=Console(file=text, width=200)) as progress:
        progress.step(rows()[1] | {"time/step_s": 0.5})
    assert "validation loss 0.5000" in text.getvalue()
    assert "clean 75.0%" in text.getvalue()
    assert "reward" not in text.getvalue()
