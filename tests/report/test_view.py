"""The terminal's view of a run folder, and the page behind it."""

from __future__ import annotations

import io
import re
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from rich.console import Console

from rlpost.report import EvalSummary, ResultRecord
from rlpost.view import ViewError, coloured, print_result, serve, view
from tests.report.synthetic import make_run


def terminal(**options: object) -> tuple[io.StringIO, Console]:
    """A console whose output can be read."""
    stream = io.StringIO()
    return stream, Console(file=stream, width=120, highlight=False, **options)  # type: ignore[arg-type]


def test_a_finished_run(tmp_path: Path) -> None:
    folder, (stream, console) = make_run(tmp_path / "run"), terminal()
    page = view(folder, console=console)
    shown = stream.getvalue()
    assert page == folder / "report.html"
    assert page.stat().st_size > 10_000
    assert "run  finished" in shown
    assert re.search(r"sampled +│ +7\.4%  \[4\.8%, 11\.3%\] │ 93\.0%  \[89\.2%, 95\.5%\]", shown)
    assert re.search(r"│ +11 │", shown)
    assert "best: pay-" in shown
    assert "worst: pay-" in shown
    assert str(page) in shown


def test_only_the_page(tmp_path: Path) -> None:
    folder, (stream, console) = make_run(tmp_path / "run", steps=2), terminal()
    view(folder, html=True, console=console)
    assert stream.getvalue() == f"{folder / 'report.html'}\n"


def test_an_interrupted_run(tmp_path: Path) -> None:
    folder, (stream, console) = make_run(tmp_path / "run", steps=3, finished=False), terminal()
    (folder / "recipe.yaml").write_text("steps: 9\n")
    view(folder, console=console)
    assert "run  not finished: 3 of 9 steps" in stream.getvalue()
    assert re.search(r"sampled +│ 7\.4%  \[4\.8%, 11\.3%\] │ +- ", stream.getvalue())


def test_a_run_without_steps(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("steps: 9\n")
    stream, console = terminal()
    view(tmp_path, console=console)
    assert "no steps yet" in stream.getvalue()


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ViewError, match=r"there is no folder .*nowhere; give the run folder"):
        view(tmp_path / "nowhere")


def test_tokens_have_the_colour_of_their_probability() -> None:
    tokens = ["say", "sure", "likely", "rare", "\x1b[2J"]
    logprobs = [None, -0.01, -0.5, -1.5, -9.0]
    text = coloured({"tokens": tokens, "policy_mask": [0, 1, 1, 1, 1], "rollout_logprobs": logprobs})
    assert text.plain == "saysurelikelyrare<1b>[2J"
    styles = [text.get_style_at_offset(Console(), offset).color for offset in (3, 7, 13, 17)]
    assert [style.name for style in styles if style] == ["green", "cyan", "yellow", "red"]
    assert text.get_style_at_offset(Console(), 0).dim


def test_a_long_context_loses_its_middle() -> None:
    tokens = [f"{number} " for number in range(5000)]
    record = {"tokens": tokens, "policy_mask": [0] * 4999 + [1], "rollout_logprobs": [None] * 4999 + [-0.1]}
    text = coloured(record).plain
    assert "[... 4,699 tokens ...]" in text
    assert text.startswith("0 1 2 ")
    assert text.endswith("4998 4999 ")


def test_the_result_in_a_few_lines(tmp_path: Path) -> None:
    stream, console = terminal()
    record = ResultRecord(30, 83.4, 0, {}, EvalSummary.of(19, 256), EvalSummary.of(238, 256))
    print_result(record, tmp_path, console)
    shown = stream.getvalue()
    assert "30 steps in 1 min 23 s, seed 0" in shown
    assert "greedy" not in shown
    assert str(tmp_path) in shown


def test_the_page_is_served_on_this_machine_only(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("<p>here</p>")
    stream, console = terminal()
    threading.Thread(target=serve, args=(page, 0, console), daemon=True).start()
    deadline = time.monotonic() + 10
    while "http" not in stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    match = re.search(r"http://127\.0\.0\.1:\d+/", stream.getvalue())
    assert match
    with urllib.request.urlopen(match[0]) as answer:
        assert answer.read() == b"<p>here</p>"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(match[0] + "recipe.yaml")
    with pytest.raises(ViewError, match="give another"):
        serve(page, int(match[0].rsplit(":", 1)[1].strip("/")), console)
