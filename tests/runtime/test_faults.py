"""Faults on real actors: wrong weights, a killed worker, failing and hanging environments, broken rewards, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
import yaml

from rlpost.controller import Controller
from rlpost.faults import RunError
from rlpost.learner.group import LearnerGroup
from rlpost.progress import Progress
from rlpost.recipe import LoadedRecipe
from rlpost.report import MetricsWriter, RolloutWriter
from rlpost.reward.plugins import Plugin
from rlpost.runfolder import RunFolder, create
from rlpost.session import Session, open_session
from rlpost.workers import RolloutActor

from .conftest import TINY, rows

Make = Callable[..., LoadedRecipe]
Run = Callable[..., RunFolder]

ENVS = """
import time

from rlpost.envs.base import Env, Observation, Score, Task


class Base(Env):
    @classmethod
    def tasks(cls, split, seed):
        return [Task(id=f"{split}-{n}", data={"n": n, "split": split}) for n in range(8)]

    def start(self):
        return [{"role": "user", "content": f"task {self.task.data['n']}"}]

    def step(self, text):
        return Observation("on", done=True)

    def score(self):
        return Score(self.seed % 5 / 5)


class Sometimes(Base):
    def step(self, text):
        if self.task.data["n"] == 3:
            raise OSError("the shop is closed")
        if self.task.data["n"] == 4:
            time.sleep(60)
        return Observation("on", done=True)


class Broken(Base):
    def start(self):
        raise OSError("no world today")


class NotANumber(Base):
    def score(self):
        return Score(float("nan"))
"""


@pytest.fixture
def env_recipe(tmp_path: Path, small_recipe: Make) -> Make:
    """The tiny recipe on one of the environments above."""
    (tmp_path / "worlds.py").write_text(ENVS)

    def make(name: str, *overrides: str) -> LoadedRecipe:
        return small_recipe(f"env.name=worlds.py:{name}", "rollout.max_turns=2", *overrides)

    return make


def controller_of(session: Session) -> Controller:
    """A controller that writes its metrics, and no rollouts, into the session's folder."""
    folder = session.folder.path
    return Controller(session, MetricsWriter(folder), RolloutWriter(folder, lambda ids: [str(i) for i in ids], 0))


def engine_process(worker: int) -> int:
    """The process id of a worker's engine, which is a child of it."""
    [found] = [
        child.pid for child in psutil.Process(worker).children() if "rlpost.rollout.vllm.served" in child.cmdline()
    ]
    return found


def test_wrong_weights_stop_the_run_within_a_step(
    env_recipe: Make, tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = LearnerGroup.publish

    def tampered(self: LearnerGroup, version: int) -> list[ray.ObjectRef]:
        (update,) = ray.get(publish(self, version))
        noise = np.random.default_rng(0)
        update.payload = [array + noise.normal(0, 0.01, array.shape).astype(array.dtype) for array in update.payload]
        return [ray.put(update)]

    folder = create(tmp_path / "run")
    with Progress(total_steps=2) as progress, open_session(env_recipe("Base"), folder, progress) as session:
        monkeypatch.setattr(LearnerGroup, "publish", tampered)
        with pytest.raises(RunError, match=r"policy version 1: .*does not hold the weights .* 26 of 26 tensors"):
            controller_of(session).train()
    assert not (folder.path / "metrics.jsonl").exists() or not rows(folder)


@pytest.mark.parametrize("killed", ["worker", pytest.param("its engine's own process", marks=pytest.mark.slow)])
def test_a_killed_worker_is_restarted_and_the_step_completes(
    env_recipe: Make, tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    if killed != "worker":  # as on a GPU
        own = (
            Plugin("rlpost.rollout.vllm.engine:VllmEngine"),
            {"config": env_recipe("Base").recipe.engine, "own_process": True},
        )
        monkeypatch.setattr("rlpost.session._engine", lambda *_: own)
    folder = create(tmp_path / "run")
    loaded = env_recipe("Base", "batch.tasks=8", "steps=2")
    with Progress(total_steps=2) as progress, open_session(loaded, folder, progress) as session:
        controller = controller_of(session)
        controller.step(0)
        controller._keep_in_flight(1)
        worker = session.pool.pids[0]
        assert worker is not None
        os.kill(worker if killed == "worker" else engine_process(worker), signal.SIGKILL)
        controller.step(1)
        assert session.pool.call(0, RolloutActor.status).version == 2
    found = rows(folder)
    assert [row["episodes"] for row in found] == [32, 32]
    assert all(row["episodes/failed"] == 0 and row["gap/logprob_abs"] < 1e-4 for row in found)


@pytest.mark.slow
def test_failing_and_hanging_episodes_are_lost_and_counted(env_recipe: Make, run: Run) -> None:
    folder = run(env_recipe("Sometimes", "batch.tasks=8", "steps=1", "rollout.deadline_s=0.5"))
    (row,) = rows(folder)
    assert row["stop/env_failed"] == 4
    assert row["stop/env_timeout"] == 4
    assert row["episodes/failed"] == 8
    assert row["episodes"] == 32


def test_too_many_failures_stop_the_run_and_say_why(env_recipe: Make, run: Run) -> None:
    with pytest.raises(RunError, match=r"16 of 16 episodes failed.*max_failed_fraction.*no world today"):
        run(env_recipe("Broken"))


@pytest.mark.slow
def test_a_reward_that_is_not_a_number_stops_the_run_with_the_task(env_recipe: Make, run: Run) -> None:
    with pytest.raises(RunError, match=r"task train-\d.*nan"):
        run(env_recipe("NotANumber"))


@pytest.mark.slow
def test_ctrl_c_ends_all_actors_and_leaves_a_readable_folder(tmp_path: Path) -> None:
    (tmp_path / "worlds.py").write_text(ENVS)
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump({**TINY, "steps": 100_000, "env": {"name": "worlds.py:Base"}}))
    out = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "rlpost.cli", "train", str(recipe), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    metrics = out / "metrics.jsonl"
    deadline = time.time() + 180
    while time.time() < deadline and not (metrics.exists() and metrics.read_text().count("\n") >= 2):
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        time.sleep(0.2)
    family = psutil.Process(process.pid).children(recursive=True)
    actors = [child for child in family if child.name().startswith(("ray::Rollout", "ray::Learner"))]
    assert len(actors) == 2
    os.killpg(process.pid, signal.SIGINT)
    assert psutil.wait_procs(actors, timeout=10)[1] == []
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "interrupted" in output
    left = subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, text=True, check=False).stdout
    assert left == ""
    assert all(json.loads(line) for line in metrics.read_text().splitlines())
    assert (out / "report.html").exists()
