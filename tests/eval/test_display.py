"""What the user sees: a bar in a terminal, lines elsewhere, and a table at the end."""

from __future__ import annotations

import io

from rich.console import Console

from rlpost.eval.display import Display, print_results
from rlpost.eval.results import summarise
from rlpost.eval.samples import Sample


def sample(index: int, right: bool) -> Sample:
    return Sample("sums", "1+1", index, 0, right, float(right), str(index), "done", False, 10, "2")


def shown(terminal: bool) -> str:
    file = io.StringIO()
    with Display(Console(file=file, force_terminal=terminal, width=120)) as display:
        display.phase("reading benchmarks")
        display.start(missing=3, there=1, right=1)
        display.note("a worker was restarted")
        for index in range(3):
            display.answer(sample(index, right=index == 0))
    return file.getvalue()


def test_a_terminal_has_a_bar() -> None:
    text = shown(terminal=True)
    assert "4/4" in text
    assert "━" in text
    assert "50.0% right" in text
    assert "a worker was restarted" in text


def test_elsewhere_there_are_lines() -> None:
    lines = shown(terminal=False).splitlines()
    assert lines[:3] == ["reading benchmarks", "answering, going on after 1", "a worker was restarted"]
    assert lines[3].startswith("4/4  50.0% right")


def test_the_table_at_the_end() -> None:
    found = summarise([sample(index, right=index < 2) for index in range(4)], (1, 2))
    console = Console(file=io.StringIO(), record=True, width=120)
    print_results({"benchmarks": {"sums": found}}, console)
    text = console.export_text()
    assert "50.0%" in text
    assert "1 x 4" in text
    assert "pass@2" in text
    assert "majority@4" in text
    assert "pass@1 " not in text
