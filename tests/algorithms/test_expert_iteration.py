"""Expert iteration and RFT: what is kept, and the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlpost.algorithms.base import LossOutput, StepConstants
from rlpost.algorithms.expert_iteration import ExpertIteration, ExpertIterationConfig
from rlpost.algorithms.rft import RFT
from rlpost.rollout.trajectory import Group, StopReason, Trajectory

from .builders import make_views


def episode(reward: float, *tokens: int) -> Trajectory:
    count = len(tokens)
    ids, mask = np.array(tokens, dtype=np.int32), np.ones(count, dtype=np.bool_)
    logprobs, versions = np.zeros(count, dtype=np.float32), np.zeros(count, dtype=np.int32)
    done = StopReason.DONE
    return Trajectory(ids, mask, logprobs, versions, [], reward, {}, reward >= 1, done, "t", 0, 0, 0)


GROUP = Group(0, "t", [episode(1, 1, 2), episode(0, 3, 4), episode(1, 1, 2), episode(1, 5, 6), episode(0.5, 7, 8)])


def test_every_success_is_kept_and_nothing_else() -> None:
    algorithm = ExpertIteration()
    (advantages,) = algorithm.advantages([GROUP])
    assert advantages.tolist() == [1, 0, 1, 1, 0]
    kept = algorithm.select_samples(advantages, np.zeros(5, dtype=np.int64), 0.0, 0)
    assert kept.tolist() == [0, 2, 3]
    assert algorithm.needs == frozenset()
    failures = Group(0, "t", [episode(0, 1, 2)] * 3)
    assert not len(algorithm.select_samples(algorithm.advantages([failures])[0], np.zeros(3, dtype=np.int64), 0.0, 0))


def test_the_bar_may_be_lowered() -> None:
    (advantages,) = ExpertIteration(ExpertIterationConfig(min_reward=0.5)).advantages([GROUP])
    assert advantages.tolist() == [1, 0, 1, 1, 1]


def test_rft_keeps_a_few_different_successes_of_a_task() -> None:
    assert RFT().config.epochs == 4
    assert RFT().advantages([GROUP])[0].tolist() == [1, 0, 0, 1, 0]
    one = RFT(RFT.Config(per_task=1))
    assert one.advantages([GROUP])[0].tolist() == [1, 0, 0, 0, 0]


def test_the_loss_is_the_mean_negative_log_probability_of_policy_tokens() -> None:
    # log-probs log 2 and log 4 of two policy tokens and one token of the prompt: -(log 2 + log 4) / 2 = -1.5 log 2
    views = make_views([None, 2.0, 4.0], [1.0], [0, 0, 0])
    output: LossOutput = ExpertIteration().loss(views, StepConstants(1, 2, 1, 8))
    assert output.loss.item() == pytest.approx(-1.5 * np.log(2), abs=1e-12)
    (gradient,) = torch.autograd.grad(output.loss, views.logprobs)
    assert gradient.tolist() == [0.0, -0.5, -0.5]
