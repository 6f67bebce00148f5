"""docs/evaluation.md shows what is there: the benchmarks and their prompts, and a benchmark of one's own that runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlpost.eval.benchmark_docs import render

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()


def test_the_page_has_every_benchmark_and_prompt() -> None:
    assert render() in PAGE, "docs/evaluation.md is behind; put in what python -m rlpost.eval.benchmark_docs prints"


def test_the_benchmark_of_ones_own_is_short_and_runs(run_eval: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    (program,) = [text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "def load" in text]
    assert len(program.strip().splitlines()) < 30
    path = tmp_path / "capitals.py"
    path.write_text(program)
    rows = [{"country": "1+1=", "capital": "2"}, {"country": "2+2=", "capital": "5"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"capitals": str(tmp_path / "rows.jsonl")}
    found = run_eval(path, build="always_right", data=data)["benchmarks"]["capitals"]
    assert (found["score"], found["questions"]) == (0.5, 2)
