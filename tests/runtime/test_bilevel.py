"""Whole ScaleBiO runs on real actors, and a reinforcement-learning run that draws its prompts by what one learned."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlpost.faults import RunError
from rlpost.recipe import LoadedRecipe, Recipe, RecipeError
from rlpost.runfolder import RunFolder, reopen
from rlpost.train import Resume

from .conftest import TINY, rows

Run = Callable[..., RunFolder]

pytestmark = pytest.mark.slow


def sums(first: int, count: int, source: str, wrong: bool = False) -> list[dict[str, str]]:
    return [
        {"id": f"{source}-{n}", "prompt": f"{n}+1=", "answer": "." if wrong else str(n + 1), "source": source}
        for n in range(first, first + count)
    ]


def write(path: Path, lines: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path.name


@pytest.fixture
def scalebio(tmp_path: Path) -> Callable[..., LoadedRecipe]:
    """A recipe on prompts of two sources in one file, with overrides."""
    write(tmp_path / "prompts.jsonl", sums(100, 24, "good") + sums(200, 24, "bad", wrong=True))
    write(tmp_path / "demonstrations.jsonl", sums(300, 12, "demo"))
    write(tmp_path / "test.jsonl", sums(400, 8, "test"))
    recipe: dict[str, Any] = {
        "model": TINY["model"],
        "steps": 12,
        "seed": 3,
        "rollout": {"chat": "plain", "max_context": 64, "max_new_tokens": 8},
        "algorithm": {
            "name": "scalebio",
            "sources": [{"data": "prompts.jsonl", "column": "source"}],
            "validation": "demonstrations.jsonl",
            "test": "test.jsonl",
            "batch_size": 8,
            "layout": "two_copies",
            "weights_lr": 0.3,
            "alpha": 1.0,
        },
        "learner": {"device": "cpu", "dtype": "fp32", "threads": 1, "optimizer": {"lr": 3e-3}},
        "cluster": {"deadline_s": 120},
    }
    path = tmp_path / "scalebio.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return lambda *overrides: Recipe.load(path, list(overrides))


def test_weights_are_learned_written_and_used_by_reinforcement_learning(
    scalebio: Callable[..., LoadedRecipe], small_recipe: Callable[..., LoadedRecipe], run: Run, tmp_path: Path
) -> None:
    folder = run(scalebio(), "weights")
    written = json.loads((folder.path / "source_weights.json").read_text())
    assert sum(written["weights"].values()) == pytest.approx(1.0)
    assert written["weights"]["good"] > 0.6
    assert written["examples"] == {"bad": 24, "good": 24}
    assert written["steps"] == list(range(1, 13))
    assert len(written["trajectory"]["good"]) == 12
    assert written["test"].keys() == {"before", "weighted", "uniform"}
    assert written["test"]["weighted"]["loss"] < written["test"]["before"]["loss"]
    assert (folder.path / "weighted" / "model.safetensors").exists()
    assert folder.result.exists()
    page = (folder.path / "report.html").read_text()
    assert "Source weights" in page
    assert "weight/good" in page

    (tmp_path / "mine.py").write_text("def ones(prompts, completions, **columns):\n    return [1.0] * len(prompts)\n")
    trained = run(
        small_recipe(
            "env={name: rlpost.envs.single_turn:SingleTurn, options: {reward: mine.py:ones}}",
            "data={train: prompts.jsonl, source_weights: weights/source_weights.json}",
            "rollout.max_turns=1",
            "steps=6",
            "save.rollouts=64",
        ),
        "rl",
    )
    drawn = [
        json.loads(line)["source"]
        for file in sorted((trained.path / "rollouts").glob("*.jsonl"))
        for line in file.read_text().splitlines()
    ]
    share = drawn.count("good") / len(drawn)
    learned = json.loads((folder.path / "source_weights.json").read_text())["weights"]["good"]
    assert len(drawn) == 6 * 16
    assert abs(share - learned) < 3 * (learned * (1 - learned) / 24) ** 0.5 + 0.02  # 24 tasks were drawn


def test_a_run_goes_on_exactly_where_it_stopped(scalebio: Callable[..., LoadedRecipe], run: Run) -> None:
    overrides = ("steps=4", "save.every=2", "algorithm.sft_examples=0")
    whole = run(scalebio(*overrides), "whole")
    again = run(scalebio(*overrides), "again")
    assert rows(whole, times=False) == rows(again, times=False)
    shutil.rmtree(again.checkpoint(4))
    lines = (again.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (again.path / "metrics.jsonl").write_text("".join(lines[:3]))
    _, done, checkpoint = reopen(again.path)
    assert done == 2
    run(scalebio(*overrides), "again", Resume(done, checkpoint))
    assert rows(again, times=False) == rows(whole, times=False)
    assert json.loads((again.path / "source_weights.json").read_text()) == json.loads(
        (whole.path / "source_weights.json").read_text()
    )


def test_bad_data_starts_nothing(scalebio: Callable[..., LoadedRecipe], run: Run, tmp_path: Path) -> None:
    write(tmp_path / "demonstrations.jsonl", sums(100, 3, "demo"))
    with pytest.raises(RunError, match="3 of 3 validation examples are also in the source 'good'"):
        run(scalebio(), "refused")
    assert not (tmp_path / "refused" / "model").exists()
    assert not (tmp_path / "refused" / "metrics.jsonl").exists()


def test_recipes_that_cannot_be_are_refused(scalebio: Callable[..., LoadedRecipe]) -> None:
    with pytest.raises(RecipeError, match=r"LISA trains whole layers, so it needs algorithm\.layout: two_copies"):
        scalebio("algorithm.layout=adapters", "learner.optimizer.name=lisa")
    with pytest.raises(RecipeError, match="two_copies has no adapters"):
        scalebio("learner.lora={rank: 2}")
    with pytest.raises(RecipeError, match="two sources are called 'a'"):
        scalebio("algorithm.sources=[x/a.jsonl, y/a.jsonl]")
    with pytest.raises(RecipeError, match="key env: this key is required"):
        scalebio("algorithm={name: grpo}")
