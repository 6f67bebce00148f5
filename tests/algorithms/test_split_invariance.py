"""However the sequences of an update are split into micro-batches, loss, sums and gradient are the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rlpost.algorithms.base import PackedViews, StepConstants
from rlpost.algorithms.policy_loss import PolicyGradient
from rlpost.algorithms.registry import build, locate
from tests.algorithms.builders import F64, constants_of, random_views

LENGTHS = [7, 4, 1, 9, 3, 12, 5]
PARTITIONS = [
    [[0, 1, 2, 3, 4, 5, 6]],
    [[0], [1], [2], [3], [4], [5], [6]],
    [[6, 0, 3], [5], [2, 1, 4]],
    [[4, 5, 6], [3, 2, 1, 0]],
]
PER_POSITION = [
    "logprobs",
    "entropies",
    "old_logprobs",
    "rollout_logprobs",
    "ref_logprobs",
    "advantages",
    "mask",
    "turn",
    "offpolicy_weight",
]
VARIANTS = [
    (name, options | shared)
    for name, options in [
        ("loop", {"ratio": "token"}),
        ("loop", {"ratio": "turn"}),
        ("loop", {"ratio": "trajectory"}),
        ("loop", {"select": {"name": "d3s", "denominator": "kept"}}),
        ("grpo", {"clip_high": 0.4}),
        ("grpo", {"aggregate": "token"}),
        ("grpo", {"aggregate": "token", "select": {"name": "d3s", "denominator": "full"}}),
        ("grpo", {"aggregate": "constant"}),
        ("gspo", {"clip": 0.1}),
        ("rloo", {}),
    ]
    for shared in ({}, {"kl": 0.05, "entropy": 0.01})
]


def part_of(views: PackedViews, members: list[int]) -> PackedViews:
    """The views of some of the sequences, in the given order, numbered anew from 0."""
    places = torch.cat([(views.sequence == member).nonzero().squeeze(1) for member in members])
    new_number = torch.zeros(views.sequences, dtype=torch.int64)
    new_number[torch.tensor(members)] = torch.arange(len(members))
    picked = {name: getattr(views, name)[places] for name in PER_POSITION}
    return replace(
        views,
        **picked,
        sequence=new_number[views.sequence[places]],
        sequence_tokens=views.sequence_tokens[torch.tensor(members)],
    )


def learn(
    algorithm: PolicyGradient, views: PackedViews, constants: StepConstants, partition: list[list[int]]
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    loss, sums = torch.zeros((), dtype=F64), {}
    for members in partition:
        output = algorithm.loss(part_of(views, members), constants)
        loss = loss + output.loss
        for name, value in output.sums.items():
            sums[name] = sums.get(name, 0) + value
    gradients = torch.autograd.grad(loss, [views.logprobs, views.entropies], allow_unused=True)
    return loss, torch.cat([gradient for gradient in gradients if gradient is not None]), sums


@pytest.mark.parametrize("drop", [0.0, 0.5])
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_any_partition_gives_the_same_gradient(name: str, options: dict, drop: float) -> None:
    algorithm = build(locate(name), options)
    assert isinstance(algorithm, PolicyGradient)
    views = random_views(11, LENGTHS, drop=drop)
    constants = constants_of(views, nominal_sequences=9)
    loss, gradient, sums = learn(algorithm, views, constants, PARTITIONS[0])
    assert bool(gradient.any())
    for partition in PARTITIONS[1:]:
        other_loss, other_gradient, other_sums = learn(algorithm, views, constants, partition)
        torch.testing.assert_close(other_loss, loss, rtol=0, atol=1e-12)
        torch.testing.assert_close(other_gradient, gradient, rtol=0, atol=1e-12)
        assert other_sums.keys() == sums.keys()
        for key, value in sums.items():
            torch.testing.assert_close(other_sums[key], value, rtol=0, atol=1e-12)
