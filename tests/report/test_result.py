"""result.json has exactly the keys that others rely on, and reads back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlpost.report import EvalSummary, ReportError, ResultRecord, package_versions, read_result, write_result

BEFORE, AFTER = EvalSummary.of(19, 256), EvalSummary.of(238, 256)


def test_the_file(tmp_path: Path) -> None:
    record = ResultRecord(30, 83.4218, 4, {"torch": "2.13.0"}, BEFORE, AFTER, None, EvalSummary.of(246, 256))
    content = json.loads(write_result(tmp_path, record).read_text())
    assert set(content) == {"steps", "wall_s", "seed", "versions", "eval_before", "eval_after", "greedy"}
    assert (content["steps"], content["wall_s"], content["seed"]) == (30, 83.422, 4)
    assert content["eval_before"] == {"success": 19 / 256, "episodes": 256, "ci95": list(BEFORE.ci95)}
    assert content["greedy"]["before"] is None
    assert content["greedy"]["after"]["success"] == 246 / 256


def test_it_reads_back(tmp_path: Path) -> None:
    record = ResultRecord(30, 83.4, 4, package_versions(), BEFORE, AFTER)
    write_result(tmp_path, record)
    assert read_result(tmp_path) == record


def test_no_file_is_no_result(tmp_path: Path) -> None:
    assert read_result(tmp_path) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"steps": 1}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ReportError, match=r"result\.json is damaged"):
        read_result(tmp_path)


def test_an_evaluation_without_a_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a number"):
        write_result(tmp_path, ResultRecord(1, 1.0, 0, {}, EvalSummary(float("nan"), 0, (0.0, 1.0))))
    assert not (tmp_path / "result.json").exists()


def test_versions_name_what_is_installed() -> None:
    versions = package_versions()
    assert {"python", "torch", "numpy"} <= set(versions)
    assert versions["numpy"].split(".")[0].isdigit()
