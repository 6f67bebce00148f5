"""Rows of metrics.jsonl survive kills, resumes and numbers that JSON does not know."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rlpost.report import MetricsWriter, ReportError, read_metrics


def test_rows_come_back_and_are_on_disk_at_once(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        writer.write({"step": 0, "loss": 0.25, "note": "ok"})
        assert read_metrics(tmp_path) == [{"step": 0, "loss": 0.25, "note": "ok"}]
        writer.write({"step": 1, "loss": 0.5})
    assert [row["step"] for row in read_metrics(tmp_path)] == [0, 1]


def test_numbers_that_json_does_not_know(tmp_path: Path) -> None:
    row = {
        "step": np.int64(3),
        "nan": math.nan,
        "inf": -math.inf,
        "array": np.float32(np.inf),
        "half": np.float32(0.5),
        "tensor": torch.tensor(2.0),
        "none": None,
    }
    with MetricsWriter(tmp_path) as writer:
        writer.write(row)
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    expected = {"step": 3, "nan": None, "inf": None, "array": None, "half": 0.5, "tensor": 2.0, "none": None}
    assert read_metrics(tmp_path) == [expected]


def test_no_file_is_no_rows(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []


def test_a_half_written_last_line_is_skipped_when_reading_and_removed_on_resume(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n{"step": 1}\n{"step": 2, "lo')
    assert [row["step"] for row in read_metrics(tmp_path)] == [0, 1]
    with MetricsWriter(tmp_path, first_step=2) as writer:
        writer.write({"step": 2})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1, 2]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\nrubbish\n{"step": 2}\n')
    with pytest.raises(ReportError, match=r"metrics\.jsonl, line 2"):
        read_metrics(tmp_path)


def test_resuming_drops_the_resumed_step_and_later_ones(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path, first_step=0) as writer:
        for step in range(6):
            writer.write({"step": step, "run": "first"})
    with MetricsWriter(tmp_path, first_step=4) as writer:
        writer.write({"step": 4, "run": "second"})
    assert [(row["step"], row["run"]) for row in read_metrics(tmp_path)] == [
        (0, "first"),
        (1, "first"),
        (2, "first"),
        (3, "first"),
        (4, "second"),
    ]


def test_without_a_first_step_rows_are_kept(tmp_path: Path) -> None:
    for step in range(2):
        with MetricsWriter(tmp_path) as writer:
            writer.write({"step": step})
    assert [row["step"] for row in read_metrics(tmp_path)] == [0, 1]


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with MetricsWriter(tmp_path, tensorboard=True) as writer:
        for step, reward in enumerate([0.25, 0.5, math.nan]):
            writer.write({"step": step, "reward/mean": reward, "note": "text"})
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["reward/mean"]
    assert [(event.step, event.value) for event in events.Scalars("reward/mean")] == [(0, 0.25), (1, 0.5)]


def test_without_the_tensorboard_package_rows_are_written_and_a_warning_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.warns(UserWarning, match=r"save\.tensorboard"), MetricsWriter(tmp_path, tensorboard=True) as writer:
        writer.write({"step": 0})
    assert read_metrics(tmp_path) == [{"step": 0}]
