"""What the learner's tests share: tiny models, random trajectories, and the smallest algorithms that use a feature.

Left out: anything that needs Ray or a network.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from rlpost.algorithms.base import Algorithm, LossOutput, PackedViews, Plan, StepConstants
from rlpost.learner.batch import LearnerSetup, StepBatch
from rlpost.learner.config import BuildConfig, LearnerConfig, ModelConfig, OptimizerConfig
from rlpost.learner.optimizers import make_optimizer
from rlpost.learner.policy import PolicyModel
from rlpost.learner.sharding import Ranks
from rlpost.learner.source import materialise
from rlpost.learner.step import learn
from rlpost.learner.update import Updater
from rlpost.rollout.trajectory import StopReason, Trajectory, Turn

TINY = BuildConfig(hidden=32, layers=2, heads=4, kv_heads=2, intermediate=48, initializer_range=0.3)


def tiny_folder(folder: Path, seed: int = 0, **changes: object) -> Path:
    """A model of 30,000 weights with logits far from uniform."""
    build = TINY.model_copy(update=changes)
    return materialise(ModelConfig(build=build), folder, seed)


def setup(folder: Path, **config: object) -> LearnerSetup:
    """A CPU learner; ``config`` are keys of LearnerConfig."""
    return LearnerSetup(folder, LearnerConfig(**({"device": "cpu", "dtype": "fp32"} | config)))


def trajectory(rng: np.random.Generator, turns: int = 2, group_id: int = 0, index: int = 0) -> Trajectory:
    """A prompt, then turns of policy tokens with observations between them and one at the end."""
    masks = [np.zeros(rng.integers(2, 9), dtype=bool)]
    places, start = [], len(masks[0])
    for _ in range(turns):
        sampled, seen = int(rng.integers(1, 7)), int(rng.integers(1, 5))
        places.append(Turn(start, start + sampled))
        masks += [np.ones(sampled, dtype=bool), np.zeros(seen, dtype=bool)]
        start += sampled + seen
    mask = np.concatenate(masks)
    logprobs = np.where(mask, -rng.random(len(mask)) * 4, np.nan).astype(np.float32)
    return Trajectory(
        token_ids=rng.integers(0, 256, len(mask)).astype(np.int32),
        policy_mask=mask,
        rollout_logprobs=logprobs,
        versions=np.where(mask, 0, -1).astype(np.int32),
        turns=places,
        reward=float(rng.random()),
        reward_parts={},
        success=False,
        stop=StopReason.DONE,
        task_id=f"task-{group_id}",
        group_id=group_id,
        index=index,
        seed=0,
    )


def batch(count: int = 8, seed: int = 0, **changes: object) -> StepBatch:
    """Random trajectories in groups of four, with random advantages."""
    rng = np.random.default_rng(seed)
    made = [trajectory(rng, int(rng.integers(1, 4)), index // 4, index % 4) for index in range(count)]
    values: dict[str, object] = {
        "trajectories": made,
        "advantages": rng.normal(size=count),
        "group_ids": np.arange(count, dtype=np.int64) // 4,
        "step": 0,
        "steps_total": 10,
        "nominal_sequences": count,
        "max_tokens": 64,
    }
    return StepBatch(**(values | changes))  # type: ignore[arg-type]


class Clipped(Algorithm):
    """PPO's clipped objective, token mean, with whatever plan and needs a test asks for."""

    def __init__(self, plan: Plan | None = None, needs: frozenset = frozenset({"old_logprobs"})) -> None:  # type: ignore[type-arg]
        super().__init__()
        self._plan, self._needs = plan or Plan(), needs
        self.seen: list[PackedViews] = []
        self.constants: list[StepConstants] = []

    @property
    def plan(self) -> Plan:
        return self._plan

    @property
    def needs(self) -> frozenset:  # type: ignore[type-arg]
        return self._needs

    def loss(self, views: PackedViews, constants: StepConstants) -> LossOutput:
        self.seen.append(views)
        self.constants.append(constants)
        if views.logprobs.requires_grad:
            views.logprobs.retain_grad()
        ratio = torch.exp(views.logprobs - views.old_logprobs)
        gain = torch.minimum(ratio * views.advantages, ratio.clamp(0.8, 1.2) * views.advantages)
        if views.offpolicy_weight is not None:
            gain = gain * views.offpolicy_weight
        drift = (views.old_logprobs - views.logprobs).detach()
        sums = {"kl_old": drift[views.mask].sum(), "clip_fraction": ((ratio - 1).abs() > 0.2)[views.mask].sum()}
        return LossOutput(-(gain * views.mask).sum() / constants.tokens, sums)


def double_updater(folder: Path, algorithm: Algorithm, max_tokens: int = 1000) -> Updater:
    """An updater in fp64 with plain descent at rate 1: weights before minus after are the gradient."""
    config = LearnerConfig(
        device="cpu",
        max_tokens_per_pack=max_tokens,
        optimizer=OptimizerConfig(name="torch.optim:SGD", lr=1.0, clip_grad=0.0),
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).double()
    policy = PolicyModel(model, torch.float64, tile=16)
    ranks = Ranks(0, 1, torch.device("cpu"), "", 60.0, sharded=False)
    return Updater(policy, ranks, algorithm, make_optimizer(policy.trainable(), config.optimizer), config)


def gradient(updater: Updater, step: StepBatch) -> torch.Tensor:
    """The gradient of one learning step with a single update, flat."""
    before = torch.cat([weight.detach().flatten().clone() for _, weight in updater.policy.trainable()])
    learn(updater, step)
    return before - torch.cat([weight.detach().flatten() for _, weight in updater.policy.trainable()])


def weights_of(learner: object) -> dict[str, NDArray[np.float32]]:
    """Copies of all weights by name."""
    policy = learner.policy  # type: ignore[attr-defined]
    return {name: weight.float().cpu().numpy().copy() for name, weight in policy.full_weights(torch.float32)}
