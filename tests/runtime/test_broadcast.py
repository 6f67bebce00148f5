"""Weights of a sharded learner by broadcast into several vLLM workers. There is no GPU here, so gloo carries what NCCL
would; the learner's ranks, the workers, the order of what they do and their faults are the real ones.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rlpost import session as sessions
from rlpost.controller import Controller
from rlpost.faults import RunError
from rlpost.placement import Placement
from rlpost.progress import Progress
from rlpost.recipe import LoadedRecipe, Recipe
from rlpost.report import MetricsWriter, RolloutWriter
from rlpost.rollout.transport.registry import find
from rlpost.rollout.vllm.config import VllmConfig, engine_environment
from rlpost.runfolder import create
from rlpost.seats import place_in_cluster
from rlpost.workers import RolloutActor

from .conftest import rows
from .test_faults import ENVS

pytestmark = pytest.mark.slow


def by_broadcast(recipe: Recipe) -> Placement:
    """The recipe's placement, with the transport that a CPU is refused."""
    return dataclasses.replace(place_in_cluster(recipe), transport=find("nccl"))


def test_two_ranks_broadcast_to_two_workers(
    small_recipe: Callable[..., LoadedRecipe], tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "place_in_cluster", by_broadcast)
    (tmp_path / "worlds.py").write_text(ENVS)
    loaded = small_recipe(
        "env.name=worlds.py:Base", "learner.ranks=2", "rollout.workers=2", "steps=3", "engine.threads=1"
    )
    folder = create(tmp_path / "run")
    with Progress(total_steps=3) as progress, sessions.open_session(loaded, folder, progress) as session:
        metrics = MetricsWriter(folder.path)
        controller = Controller(session, metrics, RolloutWriter(folder.path, lambda ids: [str(i) for i in ids], 0))
        controller.step(0)
        controller._keep_in_flight(1)
        os.kill(session.pool.pids[1] or 0, signal.SIGKILL)  # all join the broadcast anew
        controller.step(1)
        controller.step(2)
        assert [session.pool.call(index, RolloutActor.status).version for index in (0, 1)] == [3, 3]
        os.kill(session.pool.pids[0] or 0, signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(RunError, match=r"rollout worker 0 died in 'adopt'"):
            session.publisher.publish(4)
        assert time.monotonic() - began < 60
    found = rows(folder)
    assert [row["episodes"] for row in found] == [16, 16, 16]
    assert all(row["gap/logprob_abs"] < 1e-4 for row in found)
    assert all(row["updates"] > 0 for row in found)


def test_an_engine_over_two_processes_takes_a_broadcast(
    small_recipe: Callable[..., LoadedRecipe], tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores = sorted(os.sched_getaffinity(0))

    def environment(config: VllmConfig, device: str, adapters: bool = False) -> dict[str, str]:
        # left to itself vLLM wants a NUMA node for each of an engine's processes
        return engine_environment(config, device, adapters) | {"VLLM_CPU_OMP_THREADS_BIND": f"{cores[0]}|{cores[-1]}"}

    monkeypatch.setattr(sessions, "place_in_cluster", by_broadcast)
    monkeypatch.setattr(sessions, "engine_environment", environment)
    loaded = small_recipe("learner.ranks=2", "learner.lora={rank: 4}", "engine.tensor_parallel=2", "engine.threads=1")
    with (
        Progress(total_steps=0) as progress,
        sessions.open_session(loaded, create(tmp_path / "run"), progress) as session,
    ):
        assert session.publisher.publish(1).verified().logprob_abs < 1e-4
