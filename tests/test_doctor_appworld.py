"""``rlpost doctor --appworld``: what it says of each thing that may be missing."""

from __future__ import annotations

import sys

import pytest

from rlpost.checks.appworld import Installation, check_appworld, judge_appworld


def of(**found: object) -> Installation:
    return Installation("/venv/bin/python", "/data", **found)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "name", "advice"),
    [
        (of(problem="No such file"), "AppWorld: python", "pip install appworld"),
        (of(), "AppWorld: package", "pip install appworld"),
        (of(version="0.1.3", server=True), "AppWorld: apps", "/venv/bin/appworld install"),
        (of(version="0.1.3", server=True, apps=True), "AppWorld: data", "download data --root /data"),
    ],
)
def test_the_first_thing_missing_is_the_problem(seen: Installation, name: str, advice: str) -> None:
    *fine, last = judge_appworld(seen)
    assert all(finding.level == "ok" for finding in fine)
    assert (last.name, last.level) == (name, "problem")
    assert advice in last.advice


def test_a_whole_installation_is_ok() -> None:
    seen = of(version="0.1.3", server=True, apps=True, tasks={"train": 90, "dev": 57})
    assert [finding.level for finding in judge_appworld(seen)] == ["ok"] * 3


def test_an_interpreter_without_it_and_none_at_all() -> None:
    assert check_appworld("/nowhere/python", ".")[-1].name == "AppWorld: python"
    (finding,) = check_appworld(sys.executable, ".")[-1:]
    assert finding.level == "problem"
