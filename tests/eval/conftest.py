"""A model folder with the byte tokenizer, and an engine that knows sums: real Ray workers around it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rlpost.eval.display import Display
from rlpost.eval.plan import make_plan
from rlpost.eval.run import evaluate
from rlpost.eval.settings import settle
from rlpost.learner.config import ModelConfig
from rlpost.learner.source import materialise
from rlpost.reward.plugins import Plugin

ENGINES = Path(__file__).parent.parent / "support" / "engines.py"
SUMS = '''
"""Sums of two digits."""
prompt = "What is {a}+{b}=?"


def load(source):
    return [{"id": f"{a}+{b}", "a": a, "b": b} for a in range(1, 4) for b in range(4)]


def reward(completion, task):
    return float(completion.strip() == str(task["a"] + task["b"]))
'''


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of 1,024 positions."""
    build = {"hidden": 64, "layers": 2, "heads": 2, "intermediate": 64, "initializer_range": 0.2}
    folder = materialise(ModelConfig.model_validate({"build": build}), tmp_path_factory.mktemp("tiny") / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 1024}))
    return folder


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    """A user's benchmark: twelve sums."""
    path = tmp_path / "sums.py"
    path.write_text(SUMS)
    return path


def play_sums(
    model: Path, folder: Path, bench: Path | str, overrides: tuple[str, ...], build: str, **given: Any
) -> dict[str, Any]:
    """Evaluate with an engine of tests/support; what ``results.json`` holds."""
    given = {"model": str(model), "bench": tuple(str(bench).split(",")), "max_new_tokens": 8, **given}
    settings = settle(given, ["engine.slots=4", *overrides])
    engine = Plugin.locate(f"{ENGINES}:{build}")
    with Display(Console(quiet=True)) as display:
        return evaluate(make_plan(settings), folder, display, engine)


@pytest.fixture
def run_eval(ray_cluster: None, tiny_model: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Evaluate with the engine that knows sums, or another, into ``tmp_path``."""

    def run(
        bench: Path | str, *overrides: str, out: str = "out", build: str = "knowing", **given: Any
    ) -> dict[str, Any]:
        return play_sums(tiny_model, tmp_path / out, bench, overrides, build, **given)

    return run


@pytest.fixture(scope="session")
def whole(ray_cluster: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation of the sums, four samples each; not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "sums.py").write_text(SUMS)
    play_sums(tiny_model, folder / "out", folder / "sums.py", (), "knowing", n=4, k=(1, 2, 4))
    return folder / "out"
