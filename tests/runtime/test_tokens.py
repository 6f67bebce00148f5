"""What vLLM sampled is what the learner trains on, token for token, over a thousand random multi-turn episodes.

The worker, vLLM, the environment and the learner are the real ones; the engine is watched in the worker's own process.
Their prompts together exceed the tokens of an engine step, where vLLM would cut one in two and a CPU engine would die.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from rlpost.algorithms.base import Algorithm, LossOutput, PackedViews, StepConstants
from rlpost.envs.base import Task
from rlpost.learner.batch import StepBatch
from rlpost.learner.config import BuildConfig, LearnerConfig, ModelConfig
from rlpost.learner.learner import Learner, LearnerSetup
from rlpost.learner.source import materialise
from rlpost.reward.plugins import Plugin
from rlpost.rollout.config import RolloutConfig
from rlpost.rollout.specs import EpisodeSpec, WorkerSetup
from rlpost.rollout.trajectory import Trajectory
from rlpost.rollout.vllm.config import VllmConfig, engine_environment
from rlpost.rollout.worker import RolloutWorker

EPISODES = 1000
Crossed = list[tuple[list[int], list[int], np.ndarray]]
"""What crossed the engine's boundary in one episode, turn by turn: the prompt's ids, the sampled ids, log-probs."""


class WatchedWorker:
    """A rollout worker that also writes down what goes into its engine and what comes out."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._worker = RolloutWorker(setup)
        self._crossed: dict[str, Crossed] = defaultdict(list)
        engine = self._worker._engine
        generate = engine.generate

        async def watched(request: Any) -> Any:
            asked = list(request.token_ids)
            sample = await generate(request)
            episode = request.id.partition("episode ")[2].partition(",")[0]
            self._crossed[episode].append((asked, sample.token_ids.tolist(), sample.logprobs.copy()))
            return sample

        engine.generate = watched  # type: ignore[method-assign]

    async def play(self, specs: list[EpisodeSpec]) -> tuple[list[Trajectory], list[Crossed]]:
        """All episodes at once."""
        played = await asyncio.gather(*(self._worker.run(spec) for spec in specs))
        return [trajectory for _, trajectory in played], [self._crossed[str(spec.index)] for spec in specs]


class Looking(Algorithm):
    """Keeps what the loss is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[PackedViews] = []

    def loss(self, views: PackedViews, constants: StepConstants) -> LossOutput:
        self.shown.append(views)
        return LossOutput((views.logprobs * views.mask).sum() * 0.0, {})


def _play(folder: Path) -> tuple[list[Trajectory], list[Crossed]]:
    setup = WorkerSetup(
        model_folder=str(folder),
        engine=Plugin("rlpost.rollout.vllm.engine:VllmEngine"),
        env=Plugin("tests.support.worlds:AsyncChatter"),
        env_options={"turns": 4, "words": 9},
        config=RolloutConfig(max_turns=5, max_new_tokens=12, max_context=300, max_concurrent=EPISODES),
        engine_options={
            "model": str(folder),
            "config": VllmConfig(dtype="fp32", slots=128, kv_cache_gib=0.25),
            "max_context": 300,
            "seed": 0,
            "deterministic": False,
            "version": 0,
            "transport": "object_store",
        },
    )
    environment = {"env_vars": engine_environment(VllmConfig(), "cpu")}
    worker: Any = ray.remote(WatchedWorker).options(num_cpus=1, runtime_env=environment).remote(setup)
    draw = np.random.default_rng(4)
    specs = [
        EpisodeSpec(Task(f"task-{index}", {}), index // 8, index, int(draw.integers(2**31)), order=index)
        for index in range(EPISODES)
    ]
    try:
        played: tuple[list[Trajectory], list[Crossed]] = ray.get(worker.play.remote(specs), timeout=240)
        return played
    finally:
        ray.kill(worker)


@pytest.mark.slow
def test_a_thousand_episodes_train_on_the_tokens_that_vllm_sampled(ray_cluster: None, tmp_path: Path) -> None:
    build = BuildConfig(hidden=64, layers=2, heads=2, intermediate=64, initializer_range=0.2)
    folder = materialise(ModelConfig(build=build), tmp_path / "model", 0)
    trajectories, crossed = _play(folder)
    assert all(trajectory.usable for trajectory in trajectories), trajectories[0].error
    assert sum(len(turns) for turns in crossed) > 2 * EPISODES
    for trajectory, turns in zip(trajectories, crossed, strict=True):
        ids, policy = trajectory.token_ids.tolist(), np.zeros(len(trajectory), dtype=bool)
        assert len(trajectory.turns) == len(turns)
        for turn, (asked, sampled, logprobs) in zip(trajectory.turns, turns, strict=True):
            assert ids[: turn.start] == asked
            assert ids[turn.start : turn.end] == sampled
            np.testing.assert_array_equal(trajectory.rollout_logprobs[turn.start : turn.end], logprobs)
            policy[turn.start : turn.end] = True
        np.testing.assert_array_equal(trajectory.policy_mask, policy)
    _hold_against_the_learner(folder, trajectories)


def _hold_against_the_learner(folder: Path, trajectories: list[Trajectory]) -> None:
    """Every sampled token is learned from, and the learner's log-prob of it is the one that vLLM gave."""
    algorithm = Looking()
    learner = Learner(LearnerSetup(folder, LearnerConfig(device="cpu", dtype="fp32")), algorithm=algorithm)
    count = len(trajectories)
    batch = StepBatch(
        trajectories=trajectories,
        advantages=np.ones(count),
        group_ids=np.arange(count, dtype=np.int64) // 8,
        step=0,
        steps_total=1,
        nominal_sequences=count,
        max_tokens=300,
    )
    learner.learn(batch)
    shown = sum(int(views.mask.sum()) for views in algorithm.shown)
    assert shown == sum(trajectory.policy_tokens for trajectory in trajectories)
    gap = max(float((v.logprobs - v.rollout_logprobs)[v.mask].abs().max()) for v in algorithm.shown)
    assert gap < 1e-3
