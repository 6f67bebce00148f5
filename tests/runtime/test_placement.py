"""Who sits where, by hand; what cannot be, in words; and that Ray puts the actors where ``explain`` says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from rlpost.cli import app
from rlpost.placement import place
from rlpost.recipe import LoadedRecipe, Recipe, RecipeError

from .conftest import TINY

Make = Callable[..., LoadedRecipe]
GPU = ("learner.device=auto", "learner.dtype=auto")


def seated(recipe: Recipe, nodes: Sequence[int]) -> list[tuple[int, int, tuple[int, ...], tuple[int, ...]]]:
    return [(one.node, one.gpus, one.ranks, one.workers) for one in place(recipe, nodes).bundles]


@pytest.mark.parametrize(
    ("overrides", "nodes", "expected", "shares", "transport"),
    [
        ((), [1], [(0, 1, (0,), (0,))], (0.5, 0.5), "ipc"),
        (("rollout.workers=5",), [1], [(0, 1, (0,), (0, 1, 2, 3, 4))], (0.166, 0.166), "ipc"),
        ((), [2], [(0, 1, (0,), ()), (0, 1, (), (0,))], (1, 1), "object_store"),
        (
            ("learner.ranks=2", "rollout.workers=2", "sync.transport=nccl"),
            [4],
            [(0, 1, (0,), ()), (0, 1, (1,), ()), (0, 1, (), (0,)), (0, 1, (), (1,))],
            (1, 1),
            "nccl",
        ),
        (  # too few for all: each rank has a GPU to itself and a worker
            ("learner.ranks=2", "rollout.workers=2"),
            [2],
            [(0, 1, (0,), (0,)), (0, 1, (1,), (1,))],
            (0.5, 0.5),
            "object_store",
        ),
        (  # enough, but asked to share
            ("learner.ranks=2", "rollout.workers=2", "learner.gpus=0.6", "rollout.gpus=0.4"),
            [2, 2],
            [(0, 1, (0,), ()), (0, 1, (1,), ()), (1, 1, (), (0,)), (1, 1, (), (1,))],
            (0.6, 0.4),
            "object_store",
        ),
        (  # an odd number of ranks over nodes of different size, and engines of two GPUs of one node
            ("learner.ranks=3", "rollout.workers=2", "engine.tensor_parallel=2", "sync.transport=nccl"),
            [3, 4],
            [(0, 1, (0,), ()), (0, 1, (1,), ()), (0, 1, (2,), ()), (1, 2, (), (0,)), (1, 2, (), (1,))],
            (1, 2),
            "nccl",
        ),
    ],
)
def test_places(
    small_recipe: Make,
    overrides: tuple[str, ...],
    nodes: list[int],
    expected: list[Any],
    shares: tuple[float, float],
    transport: str,
) -> None:
    recipe = small_recipe(*GPU, *overrides).recipe
    found = place(recipe, nodes)
    assert seated(recipe, nodes) == expected
    assert (found.learner_gpus, found.worker_gpus, found.transport.name) == (*shares, transport)


@pytest.mark.parametrize(
    ("overrides", "nodes", "said"),
    [
        (("learner.ranks=3",), [2], r"asks for 4 GPUs .*learner.ranks 3 x 1.*there are 2 \(2 on node 0\); lower"),
        (
            ("rollout.workers=3", "rollout.gpus=1"),
            [2, 1],
            r"asks for 3.5 GPUs .*there are 3 \(2 on node 0, 1 on node 1\)",
        ),
        (("learner.gpus=0.7", "rollout.gpus=0.5"), [1], r"asks for 1.2 GPUs"),
        (("engine.tensor_parallel=2",), [2, 1], None),
        (("engine.tensor_parallel=2",), [1, 1, 1], r"there are 3 .*engine.tensor_parallel"),
        (("engine.tensor_parallel=2", "rollout.gpus=1"), [4], r"rollout.gpus: 1 GPUs for a worker .* over 2"),
        (
            ("engine.tensor_parallel=4",),
            [8],
            r"engine.tensor_parallel: 4 GPUs cannot share the model's 2 attention heads",
        ),
        (("sync.transport=nccl",), [1], r"learner rank 0 and rollout worker 0 share one"),
        (
            ("sync.transport=nccl",),
            [0],
            r"sync.transport: nccl sends weights from GPU to GPU, and this run is on a CPU",
        ),
        (("sync.transport=ipc",), [2], r"sync.transport: ipc passes weights within one GPU.*on several here"),
        (("sync.transport=ipc",), [0], r"sync.transport: ipc passes weights within one GPU.*on a CPU"),
        (("learner.device=cuda",), [0], r"this machine has none"),
    ],
)
def test_what_cannot_be_is_refused(
    small_recipe: Make, overrides: tuple[str, ...], nodes: list[int], said: str | None
) -> None:
    recipe = small_recipe(*GPU, *overrides).recipe
    if said is None:
        place(recipe, nodes)
        return
    with pytest.raises(RecipeError, match=said):
        place(recipe, nodes)


def test_heads_of_a_model_on_disk_are_looked_up(small_recipe: Make, tmp_path: Any) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(
        json.dumps({"model_type": "qwen2", "num_attention_heads": 14, "num_key_value_heads": 2, "hidden_size": 896})
    )
    recipe = small_recipe(*GPU, f"model={{path: {tmp_path / 'm'}}}", "engine.tensor_parallel=4").recipe
    with pytest.raises(RecipeError, match="14 attention heads"):
        place(recipe, [8])


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (["--gpus", "4"], ["GPU: learner rank 0; GPU: rollout worker 0; 2 free"]),
        (
            [
                *["learner.ranks=5", "rollout.workers=2", "engine.tensor_parallel=2", "sync.transport=nccl"],
                "--gpus=5",
                "--nodes=2",
            ],
            ["by NCCL broadcast", "2 with 2 GPU each", "node 1, GPUs 5", "1 free"],
        ),
        (["--gpus", "0"], ["on CPU", "through Ray's object store"]),
        (["learner.ranks=9", "--gpus", "8"], ["refused", "10 GPUs"]),
    ],
)
def test_explain_prints_the_placement(tmp_path: Any, options: list[str], lines: list[str]) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    answer = CliRunner().invoke(app, ["explain", str(path), *GPU, *options], env={"COLUMNS": "400"})
    assert answer.exit_code == 0, answer.output
    for line in lines:
        assert line in answer.output


def test_explain_prints_where_a_learner_without_workers_sits() -> None:
    recipe = Path(__file__).parents[2] / "recipes" / "scalebio.yaml"
    answer = CliRunner().invoke(app, ["explain", str(recipe), "learner.ranks=2", "--gpus=4"], env={"COLUMNS": "400"})
    assert "GPU: learner rank 0; GPU: learner rank 1; 2 free" in answer.output
    assert "rollout worker" not in answer.output


@pytest.mark.slow
def test_actors_land_where_the_placement_says(tmp_path: Any) -> None:
    learner = {"device": "auto", "ranks": 5}
    recipes: list[dict[str, Any]] = [
        TINY | {"learner": learner, "rollout": TINY["rollout"] | {"workers": 4}, "engine": {"tensor_parallel": 2}},
        TINY | {"learner": learner | {"ranks": 8}, "rollout": TINY["rollout"] | {"workers": 9}},  # one GPU is shared
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.runtime.placed", str(tmp_path / "found")],
        input=json.dumps(recipes),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "found").read_text())
    assert found["nodes"] == [8, 8]
    assert "other actors of this cluster hold GPUs" in found["twice"]
    for number, values in enumerate(recipes):
        placed = place(Recipe.model_validate(values), [8, 8])
        taken: set[tuple[int, str]] = set()
        for bundle in placed.bundles:
            here = [found[str(number)][f"learner rank {rank}"] for rank in bundle.ranks]
            here += [found[str(number)][f"rollout worker {worker}"] for worker in bundle.workers]
            (node, *gpus) = here[0]
            assert all(place == here[0] for place in here)  # those that share sit on the same GPU
            assert (node, len(gpus)) == (bundle.node, bundle.gpus)
            assert taken.isdisjoint((node, gpu) for gpu in gpus)
            taken |= {(node, gpu) for gpu in gpus}


@pytest.mark.slow
def test_a_run_over_two_nodes_needs_their_address_alone(tmp_path: Any) -> None:
    path, out = tmp_path / "tiny.yaml", tmp_path / "run"
    more = {"rollout": {"workers": 2}, "learner": {"ranks": 2}, "engine": {"threads": 1}}
    path.write_text(yaml.safe_dump(TINY | {section: TINY[section] | keys for section, keys in more.items()}))
    command = [sys.executable, "-m", "tests.runtime.placed", str(path), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["episodes"] for row in found] == [16, 16]


@pytest.mark.slow
def test_a_run_starts_a_cluster_of_its_own_whatever_is_announced() -> None:
    code = (
        "import ray; from rlpost.cluster import ray_cluster as own\nwith own(None) as up: up(); print(len(ray.nodes()))"
    )
    environment = os.environ | {"RAY_ADDRESS": "127.0.0.1:9"}  # nobody answers there
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.split()[-1:] == ["1"], done.stderr[-2000:]
