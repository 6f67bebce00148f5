"""``rlpost eval`` as a user runs it, with the real engine: ended in the middle, it goes on to the same numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def start(model: Path, bench: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    options = ["--n", "24", "--k", "1,24", "--max-new-tokens", "48", "--out", str(out), *more]
    options += ["engine.slots=16", "engine.kv_cache_gib=0.25", "engine.dtype=fp32", "engine.threads=1"]
    command = [sys.executable, "-m", "rlpost.cli", "eval", str(model), "--bench", str(bench), *options]
    return subprocess.Popen(
        command,
        cwd=bench.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_ended_in_the_middle_it_goes_on_to_the_same_numbers(tiny_model: Path, sums: Path, tmp_path: Path) -> None:
    # Long enough that vLLM would compute some of them in pieces, which must not happen on a CPU (rollout/vllm/core.py).
    sums.write_text(sums.read_text().replace('prompt = "What', f'prompt = "{"Think. " * 70}What'))
    samples = tmp_path / "cut" / "samples.jsonl"
    cut = start(tiny_model, sums, tmp_path / "cut")
    deadline = time.monotonic() + 240
    while not samples.exists() or samples.read_text().count("\n") < 20:
        assert cut.poll() is None, cut.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    cut.send_signal(signal.SIGTERM)
    said = cut.communicate(timeout=120)[0]
    assert cut.returncode == 130, said
    before = samples.read_text().count("\n")
    assert 20 <= before < 288
    for out, more in ((tmp_path / "cut", ()), (tmp_path / "whole", ("--workers", "2"))):
        done = start(tiny_model, sums, out, *more)
        said = done.communicate(timeout=240)[0]
        assert done.returncode == 0, said
    found = {name: json.loads((tmp_path / name / "results.json").read_text()) for name in ("cut", "whole")}
    assert found["cut"]["samples_played"] == 288 - before
    assert found["whole"]["samples_played"] == 288
    assert found["cut"]["benchmarks"] == found["whole"]["benchmarks"]
    assert samples.read_text() == (tmp_path / "whole" / "samples.jsonl").read_text()
    assert "sums" in said
    assert str(tmp_path / "whole" / "report.html") in said
