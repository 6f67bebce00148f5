"""What is wrong is said in one clear error, exit code 2, and nothing was started: no Ray, no engine, no folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import ray
from typer.testing import CliRunner

from rlpost.cli import app
from rlpost.learner.tiny import byte_tokenizer
from rlpost.workers import WorkerPool
from tests.eval.rows import CASES

ROW = CASES[0].row


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(ROW) + "\n")
    return path


@pytest.fixture(autouse=True)
def _nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something was started")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(WorkerPool, "__init__", refuse)


def refused(tmp_path: Path, *arguments: str) -> str:
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["eval", *arguments, "--out", str(out)])
    assert result.exit_code == 2, (result.output, result.exception)
    assert not out.exists()
    return " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m", "--bench", "gsm8"], "there is no benchmark 'gsm8'; did you mean 'gsm8k'"),
        (["m", "--bench", "gsm8k", "--k", "8"], "pass@8 needs at least 8 samples a question and n is 1; raise --n"),
        (["m", "--bench", "gsm8k", "--n", "4", "--k", "1,5"], "pass@5 needs at least 5 samples a question and n is 4"),
        (["m", "--bench", "gsm8k", "--n", "4", "--k", "0"], "pass@0 needs"),
        (["m", "--bench", "gsm8k", "--k", "many"], "--k many: give whole numbers"),
        (["m", "--bench", "gsm8k", "--n", "0"], "n: Input should be greater than or equal to 1"),
        (["m", "--bench", "gsm8k", "--n", "4", "--temperature", "0"], "all 4 samples of a question are the same"),
        (["m", "--bench", "gsm8k", "--temperature", "-1"], "temperature: Input should be greater than or equal to 0"),
        (["m", "--bench", "gsm8k", "--prompts", "chit"], "prompts: Input should be 'chat' or 'base'"),
        (["m", "--bench", "gsm8k", "--data", "rows.jsonl"], "--data rows.jsonl: give NAME=PATH"),
        (["m", "--bench", "gsm8k", "--data", "math=x.jsonl"], "--data math=...: there is no such name here"),
        (["m", "--bench", "gsm8k", "--data", "gsm8k=no.jsonl"], "no data file"),
        (["m", "--bench", "gsm8k", "engine.slotz=3"], "unknown key; did you mean 'slots'"),
        (["m", "--bench", "gsm8k", "rollout.top_p=0.9"], "top_p: not offered"),
        (["--bench", "gsm8k"], "give a model and --bench"),
        (["m"], "give a model and --bench"),
        (["m", "--bench", "none.py"], "no file none.py"),
        (["m", "--bench", "appworld"], "env.options.appworld.root is missing"),
        (["m", "--bench", "payments", "--shots", "2"], "benchmark payments has no worked examples"),
    ],
)
def test_known_before_any_row_is_read(arguments: list[str], message: str, tmp_path: Path) -> None:
    assert message in refused(tmp_path, *arguments)


def test_a_malformed_row(rows: Path, tmp_path: Path) -> None:
    rows.write_text(json.dumps(ROW) + '\n{"question": "And?"}\n')
    said = refused(tmp_path, "m", "--bench", "gsm8k", "--data", f"gsm8k={rows}")
    assert "test.jsonl, line 2: the column answer is missing or empty; the row has: question" in said


def test_no_such_model(rows: Path, tmp_path: Path) -> None:
    said = refused(tmp_path, str(tmp_path / "nothing"), "--bench", "gsm8k", "--data", f"gsm8k={rows}")
    assert "there is no folder" in said


def test_a_run_without_a_checkpoint(rows: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text("rollout: {chat: plain}\n")
    said = refused(tmp_path, str(run), "--bench", "gsm8k", "--data", f"gsm8k={rows}")
    assert "is a run without a complete checkpoint" in said


def test_a_model_without_a_chat_template(rows: Path, tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    for path in tiny_model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
    said = refused(tmp_path, str(folder), "--bench", "gsm8k", "--data", f"gsm8k={rows}")
    assert "has no chat template" in said
    assert "give --prompts base" in said


def test_a_context_too_small_for_the_worked_examples(rows: Path, tmp_path: Path, tiny_model: Path) -> None:
    shots = tmp_path / "train.jsonl"
    shots.write_text("".join(json.dumps({"question": f"{i}?" * 50, "answer": "#### 1"}) + "\n" for i in range(9)))
    data = ["--data", f"gsm8k={rows}", "--data", f"gsm8k.shots={shots}"]
    said = refused(tmp_path, str(tiny_model), "--bench", "gsm8k", *data, "--shots", "8", "--max-new-tokens", "64")
    assert "the prompt of task 'gsm8k-0' (8 worked examples) takes" in said
    assert "the model has 1024 positions. Lower --shots or --max-new-tokens" in said


LOAD = "prompt = '{x}'\n\n\ndef load(source):\n    return %s\n\n\n"
REWARD = "def reward(completion, task):\n    return 1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LOAD % "[]", "must define load(source), reward(completion, task)"),
        ("def broken(:\n", "SyntaxError"),
        (LOAD % "[{'y': 1}]" + REWARD, "its prompt cannot be filled: KeyError: 'x'. The columns: y"),
        (LOAD % "[3]" + REWARD, "row 1 of load(None): an object is wanted, this is int"),
        (LOAD % "[]" + REWARD, "has no rows that belong to it"),
        (LOAD % "[{'x': 1}]" + REWARD.replace("completion, task", "text"), "it must be f(completion, task)"),
    ],
)
def test_a_broken_benchmark_of_ones_own(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    assert message in refused(tmp_path, "m", "--bench", str(path))


def test_comparing_what_is_no_evaluation(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["eval", "--compare", str(tmp_path), str(tmp_path)])
    assert result.exit_code == 2
    assert "has no results.json" in " ".join(result.stderr.split())
