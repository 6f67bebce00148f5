"""What the policy-gradient algorithms do around the loss: advantages of groups, rejection, plans, stops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlpost.algorithms.base import AlgorithmError, Plan
from rlpost.algorithms.policy_loss import PolicyGradient
from rlpost.algorithms.registry import build, locate
from tests.algorithms.builders import constants_of, make_group, make_views


def make(name: str, **options) -> PolicyGradient:
    algorithm = build(locate(name), options)
    assert isinstance(algorithm, PolicyGradient)
    return algorithm


ONE_OF_FOUR = make_group([1.0, 0.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("loop", {}, [1.0, -1 / 3, -1 / 3, -1 / 3]),
        ("rloo", {}, [1.0, -1 / 3, -1 / 3, -1 / 3]),
        ("grpo", {}, [1.5, -0.5, -0.5, -0.5]),  # sample deviation 1/2
        ("gspo", {}, [1.5, -0.5, -0.5, -0.5]),
        ("grpo", {"advantage": {"std": "population"}}, [3**0.5] + [-(3**-0.5)] * 3),
        ("grpo", {"advantage": {"std": "none"}}, [0.75, -0.25, -0.25, -0.25]),
        ("grpo", {"advantage": {"refill": 3}}, [1.5, -0.5, -0.5, -0.5]),  # a neighbour leaves the default alone
        ("loop", {"advantage": {"std": "sample"}}, [2.0, -2 / 3, -2 / 3, -2 / 3]),
    ],
)
def test_advantages_of_groups(name: str, options: dict, expected: list[float]) -> None:
    first, second = make(name, **options).advantages([ONE_OF_FOUR, make_group([0.3], group_id=1)])
    assert first.dtype == np.float64
    np.testing.assert_allclose(first, expected, rtol=1e-5, atol=0)  # eps 1e-6 beside deviations of about 1/2
    assert second.tolist() == [0.0]


def test_overlong_penalty_is_taken_from_the_reward() -> None:
    # lengths 4 and 8, max 8, buffer 4: penalties 0 and -1, times 0.5: rewards 1 and 0.5, so +-0.5
    overlong = {"max_tokens": 8, "buffer": 4, "penalty": 0.5}
    (advantages,) = make("loop", advantage={"overlong": overlong}).advantages([make_group([1.0, 1.0], tokens=[4, 8])])
    assert advantages.tolist() == [0.5, -0.5]


@pytest.mark.parametrize(("rewards", "words"), [([], "without trajectories"), ([1.0, float("nan")], "not all finite")])
def test_a_bad_group_is_named(rewards: list[float], words: str) -> None:
    with pytest.raises(AlgorithmError, match=rf"task-7 \(group 7\).*{words}"):
        make("loop").advantages([make_group(rewards, group_id=7)])


def select(algorithm: PolicyGradient, advantages: list[float], progress: float = 0.0) -> list[int]:
    values = np.array(advantages)
    return algorithm.select_samples(values, np.zeros(len(values), dtype=np.int64), progress, seed=1).tolist()


def test_loop_rejects_small_advantages_and_grpo_does_not() -> None:
    assert select(make("loop"), [0.5, 0.0099, -0.0099, 0.01, -0.4]) == [0, 3, 4]
    assert select(make("loop", min_abs_advantage=0.45), [0.5, 0.0099, -0.0099, 0.01, -0.4]) == [0]
    assert select(make("grpo"), [0.5, 0.0, -0.5]) == [0, 1, 2]


@pytest.mark.parametrize("name", ["loop", "grpo", "gspo", "rloo"])
def test_nothing_to_learn_is_an_empty_selection(name: str) -> None:
    assert select(make(name), [0.0, 0.0, 0.0]) == []


def test_a_regularizer_still_moves_the_policy_where_all_rewards_are_equal() -> None:
    assert select(make("grpo", kl=0.1), [0.0, 0.0]) == [0, 1]
    assert select(make("grpo", entropy=0.1), [0.0, 0.0]) == [0, 1]


def test_a_group_without_spread_has_exactly_zero_gradient() -> None:
    (advantages,) = make("grpo").advantages([make_group([0.1, 0.1, 0.1])])
    views = make_views([1.1, 0.9, 1.2], advantages.tolist(), [0, 1, 2])
    output = make("grpo").loss(views, constants_of(views))
    (gradient,) = torch.autograd.grad(output.loss, views.logprobs)
    assert gradient.tolist() == [0.0] * 3


@pytest.mark.parametrize(("advantages", "words"), [([], "no usable trajectory"), ([1.0, np.nan], "1 of 2 advantages")])
def test_bad_advantages_are_refused(advantages: list[float], words: str) -> None:
    with pytest.raises(AlgorithmError, match=words):
        select(make("grpo"), advantages)


def test_plan_and_needs_follow_the_options() -> None:
    assert make("loop").plan == Plan(2, 1)
    assert make("grpo", epochs=3, minibatches=4).plan == Plan(3, 4)
    assert make("rloo").plan == Plan(1, 1)
    assert make("grpo").needs == {"old_logprobs"}
    assert make("grpo", kl=0.1).needs == {"old_logprobs", "ref_logprobs"}
    assert make("grpo", select={"name": "d3s"}).needs == {"old_logprobs", "entropies"}
    assert make("grpo", select={"name": "d3s", "tokens": 100}).needs == {"old_logprobs"}
    assert not make("grpo").loss_entropies
    assert make("grpo", entropy=0.1).loss_entropies


def test_early_stop_looks_at_the_kl_of_a_trajectory() -> None:
    # three tokens of log-ratio log 2 and one of log 1/4 in two sequences: k1 sums to -(3 log 2 - 2 log 2) = -log 2,
    # a mean of -log(2)/2 = -0.3466 a trajectory; the learner hands on sums divided by the update's 4 tokens
    views = make_views([2.0, 2.0, 2.0, 0.25], [1.0, 1.0], [0, 0, 1, 1])
    sums = make("loop").loss(views, constants_of(views)).sums
    metrics = {name: value.item() / 4 for name, value in sums.items()}
    assert make("loop", early_kl_stop=0.34).stop(metrics)
    assert not make("loop", early_kl_stop=0.35).stop(metrics)
    assert not make("loop").stop(metrics)  # 20 nats
    assert not make("loop", early_kl_stop=None).stop(metrics)
    assert not make("grpo").stop(metrics)


def test_early_stop_at_the_default_bound() -> None:
    # 21 tokens of log-ratio -1 in one trajectory: 21 nats; 19 of them: 19 nats
    for tokens, stops in [(21, True), (19, False)]:
        views = make_views([np.exp(-1.0)] * tokens, [1.0], [0] * tokens)
        sums = make("loop").loss(views, constants_of(views)).sums
        assert make("loop").stop({name: value.item() / tokens for name, value in sums.items()}) is stops
    assert not make("loop").stop({})


def test_dynamic_sampling_asks_for_groups_with_spread() -> None:
    dapo = make("grpo", advantage={"refill": 8})
    assert dapo.refill_budget == 8
    assert dapo.wants_refill(np.array([1.0, 1.0]))
    assert not dapo.wants_refill(np.array([1.0, 0.0]))
    assert not make("grpo").wants_refill(np.array([1.0, 1.0]))
    assert make("grpo").refill_budget == 0


def test_report_counts_what_selection_did() -> None:
    advantages, groups = np.array([1.0, -1.0, 0.0, 0.0]), np.array([4, 4, 9, 9])
    report = make("loop").report(advantages, groups, np.array([0, 1]))
    assert report == {
        "select/samples": 4.0,
        "select/kept": 2.0,
        "select/groups": 2.0,
        "select/kept_groups": 1.0,
        "select/zero_variance_groups": 0.5,
        "select/variance_before": 0.5,  # (1 + 1 + 0 + 0) / 4
        "select/variance_after": 1.0,
    }


def test_report_of_a_skipped_step() -> None:
    report = make("loop").report(np.zeros(2), np.zeros(2, dtype=np.int64), np.empty(0, dtype=np.int64))
    assert (report["select/kept"], report["select/variance_after"]) == (0.0, 0.0)


def test_describe_says_the_bounds() -> None:
    assert make("grpo", clip_high=0.28, epochs=2, minibatches=3).describe() == {
        "ratio": "token",
        "ratio bounds": "0.8 .. 1.28",
        "updates a step": 6,
        "loss divides by": "kept",
    }
    assert make("rloo").describe()["ratio bounds"] == "none"
    assert make("loop").describe()["loss divides by"] == "full"
    assert make("loop", select={"name": "d3s", "denominator": "kept"}).describe()["loss divides by"] == "kept"
