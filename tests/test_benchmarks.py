"""The instruments: counts by hand, results that survive a failing part, and each benchmark's smallest run.

Left out: what they measure.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from rlpost.benchmarks import BENCHMARKS
from rlpost.benchmarks.harness import SHAPES, Results, flops, matrix_parameters
from rlpost.benchmarks.learner import sequences
from rlpost.benchmarks.memory import MemoryWatch
from rlpost.benchmarks.model_page import COLUMNS, write_page
from rlpost.cli import app


def test_weights_of_a_shape_by_hand() -> None:
    # attention: 256 x 64 x (4 + 4 query and output heads, 4 + 4 key and value heads); feed-forward: 3 x 256 x 960
    assert matrix_parameters("tiny") == 3 * (256 * 64 * 16 + 3 * 256 * 960) + 264 * 256
    assert matrix_parameters("0.5b") == pytest.approx(0.494e9, rel=0.01)


def test_flops_by_hand() -> None:
    weights, width = matrix_parameters("tiny"), 4 * 64
    attention = 6 * 3 * width * (10**2 + 20**2)
    assert flops("tiny", [10, 20]) == 6 * weights * 30 + attention
    assert flops("tiny", [10, 20], scored=0) == 6 * (weights - 264 * 256) * 30 + attention


@pytest.mark.parametrize("tiny", [False, True])
def test_skewed_lengths_have_the_spread_and_padding_adds_no_scored_token(tiny: bool) -> None:
    tokens = 2048 if tiny else 65_536
    skewed, padded = (np.array(sequences(kind, tokens, tiny)) for kind in ("skewed", "padded"))
    assert skewed[:, 1].max() / skewed[:, 1].mean() == pytest.approx(5.6, rel=0.05)
    assert set(padded[:, 1]) == {skewed[:, 1].max()}
    np.testing.assert_array_equal(padded[:, 1] - padded[:, 0], skewed[:, 1] - skewed[:, 0])


def test_a_part_that_fails_leaves_the_others(tmp_path: Path) -> None:
    results = Results("some", tmp_path, {"model": "tiny"})
    results.attempt("first", lambda: {"ms": 1.5})
    results.attempt("second", lambda: {"ms": 1 / 0})
    results.attempt("third", lambda: {"ms": 2500.0, "gib": 3.25})
    read = json.loads((tmp_path / "some.json").read_text())
    assert [row["part"] for row in read["rows"]] == ["first", "second", "third"]
    assert read["rows"][1]["failed"] == "ZeroDivisionError: division by zero"
    assert {"date", "device", "command", "torch", "model"} <= set(read["facts"])
    assert "| third | 2,500 |  | 3.25 |" in (tmp_path / "some.md").read_text()


def test_without_a_gpu_there_is_no_memory_to_watch() -> None:
    with MemoryWatch() as watch:
        pass
    if watch.baseline_gib is None:
        assert watch.peak_gib(0, 1e12) is None


@pytest.mark.parametrize("arguments", [["bench"], ["bench", "nothing"]])
def test_bench_lists_what_there_is(arguments: list[str]) -> None:
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 2
    assert all(name in answer.output for name in BENCHMARKS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "row"),
    [
        ("logprobs", [], "naive, d 64"),
        ("engine_steps", [], "engine"),
        ("learner", ["--parts", "tiny:64:checkpoint"], "tiny:64:checkpoint"),
        ("optimizer_memory", ["--only", "LoRA"], "LoRA, rank 16"),
        ("scalebio_real", [], "weighted"),
        ("scaling", ["--parts", "learner:tiny:2", "--steps", "1"], "learner:tiny:2"),
    ],
)
def test_smallest_runs(name: str, options: list[str], row: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rlpost.cli", "bench", name, "--out", str(tmp_path), "--device", "cpu", "--tiny"]
    subprocess.run([*command, *options], check=True, timeout=240)
    rows = {one["part"]: one for one in json.loads((tmp_path / f"{name}.json").read_text())["rows"]}
    assert "failed" not in rows[row]
    assert set(SHAPES) >= {"tiny"}


@pytest.mark.slow
def test_families_of_models_are_right_in_every_part_of_a_run(tmp_path: Path) -> None:
    """Dense, a mixture with renamed experts, one with a router's correction bias, caps, and rotary scaling."""
    families = ["Llama", "Mixtral", "GLM-4-MoE", "Gemma 2 (soft caps)", "Phi-3, longrope", "OLMo 2"]
    command = [sys.executable, "-m", "rlpost.cli", "bench", "models", "--out", str(tmp_path), "--device", "cpu"]
    page = tmp_path / "models.md"
    subprocess.run([*command, "--families", *families, "--page", str(page)], check=True, timeout=900)
    rows = json.loads((tmp_path / "models-cpu-fp32.json").read_text())["rows"]
    assert {row["family"] for row in rows} == set(families)
    for row in rows:
        for column in COLUMNS:
            if column == "LoRA" and row["family"] in ("Mixtral", "GLM-4-MoE"):
                assert "its kernels for them need Triton" in row[column]
                continue
            assert row[column].startswith(("right", "transformers right")), (row["family"], column, row[column])
            assert "vLLM right" in row[column] or column != "checkpoint"
    assert all(f"| {family} |" in page.read_text() for family in families)


def test_the_page_gives_each_reason_once(tmp_path: Path) -> None:
    results = Results("models-cpu-fp32", tmp_path, {"dtype": "fp32"})
    right, refused = dict.fromkeys(COLUMNS, "right (1e-06)"), dict.fromkeys(COLUMNS, "refused: too odd")
    results.rows = [{"family": "A", "path": "packed"} | right, {"family": "B", "path": ""} | refused]
    results.write()
    write_page(tmp_path / "models.md", tmp_path)
    lines = (tmp_path / "models.md").read_text().splitlines()
    assert "| A | packed | " + " | ".join(["right (1e-06)"] * 6) + " |" in lines
    assert "| B |  | " + " | ".join(["refused [1]"] * 6) + " |" in lines
    assert [line for line in lines if "too odd" in line] == ["1. too odd"]


def test_the_table_of_methods_by_hand() -> None:
    from rlpost.benchmarks.studies.agents_runs import summarise

    def row(method: str, seed: int, tgc: float) -> dict[str, Any]:
        found = {"tgc": tgc, "sgc": 0.0}
        return {"method": method, "seed": seed, "before": {"tgc": 0.1}, "after": found, "step_s": 2.0}

    rows = [row("LOOP", 0, 0.5), row("LOOP", 1, 0.7), row("GRPO", 1, 0.3), row("GRPO", 0, 0.3)]
    table = summarise(rows, ["LOOP", "RLOO", "GRPO"]).splitlines()
    # two values 20 points apart: a standard error of 10, and t = 12.706 with one degree of freedom
    assert table[2] == "| LOOP | 2 | 10.0 ± 0.0 | 60.0 ± 127.1 | 0.0 ± 0.0 | 50.0 ± 127.1 |  | 2.00 |"
    assert table[3] == "| GRPO | 2 | 10.0 ± 0.0 | 30.0 ± 0.0 | 0.0 ± 0.0 | 20.0 ± 0.0 | 30.0 ± 127.1 | 2.00 |"
