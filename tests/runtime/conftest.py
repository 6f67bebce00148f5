"""A small real run: real Ray actors, real vLLM, a tiny model on the payments world.

Left out: mocks; what runs here is what a user runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlpost.recipe import LoadedRecipe, Recipe
from rlpost.runfolder import RunFolder, create

TINY: dict[str, Any] = {
    "seed": 5,
    "steps": 2,
    "model": {"build": {"hidden": 64, "layers": 2, "heads": 2, "intermediate": 64, "initializer_range": 0.2}},
    "env": {"name": "rlpost.envs.payments:Payments"},
    "batch": {"tasks": 4, "group_size": 4},
    "rollout": {"max_turns": 3, "max_new_tokens": 6, "max_context": 192},
    "algorithm": {"name": "grpo", "clip": 0.2},
    "learner": {"device": "cpu", "dtype": "fp32", "threads": 1, "optimizer": {"lr": 1e-3}},
    "engine": {"dtype": "fp32", "slots": 32, "kv_cache_gib": 0.25},
    "eval": {"episodes": 0},
    "cluster": {"deadline_s": 120},
}


@pytest.fixture
def small_recipe(tmp_path: Path) -> Callable[..., LoadedRecipe]:
    """Load the tiny recipe with dotted overrides, e.g. ``small_recipe("steps=3")``."""

    def make(*overrides: str) -> LoadedRecipe:
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(TINY))
        return Recipe.load(path, list(overrides))

    return make


@pytest.fixture
def run(ray_cluster: None, tmp_path: Path) -> Callable[..., RunFolder]:
    """Train a recipe to its end in this process, on the shared Ray cluster; the run folder."""
    from rlpost.train import Resume, train

    def make(loaded: LoadedRecipe, name: str = "run", resume: Resume | None = None) -> RunFolder:
        folder = RunFolder(tmp_path / name) if resume else create(tmp_path / name)
        train(loaded, folder, time.time(), resume)
        return folder

    return make


def rows(folder: RunFolder, times: bool = True) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, without the keys that hold seconds where ``times`` is false."""
    found = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    return found if times else [{k: v for k, v in row.items() if not k.startswith("time/")} for row in found]
