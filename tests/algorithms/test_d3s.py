"""D3S on top of the policy-gradient algorithms: samples, tokens, schedules, PODS, and reduction to the base."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlpost.algorithms.base import AlgorithmError
from rlpost.algorithms.d3s import max_variance_subset
from rlpost.algorithms.policy_loss import PolicyGradient
from rlpost.algorithms.registry import build, locate
from tests.algorithms.builders import F64, constants_of, make_group, make_views, random_views


def make(name: str = "grpo", base: dict | None = None, **select) -> PolicyGradient:
    algorithm = build(locate(name), (base or {}) | {"select": {"name": "d3s"} | select})
    assert isinstance(algorithm, PolicyGradient)
    return algorithm


# Two groups of four: a mixed one and one of failures.
ADVANTAGES = np.array([1.5, -0.5, -0.5, -0.5, 0.0, 0.0, 0.0, 0.0])
GROUPS = np.array([7, 7, 7, 7, 9, 9, 9, 9])


def kept(algorithm: PolicyGradient, progress: float = 0.0, seed: int = 0, values: np.ndarray = ADVANTAGES) -> list[int]:
    return algorithm.select_samples(values, GROUPS[: len(values)], progress, seed).tolist()


def test_across_the_batch_groups_without_spread_go_first() -> None:
    assert kept(make(samples=50)) == [0, 1, 2, 3]


def test_within_groups_each_keeps_its_share() -> None:
    chosen = kept(make(samples=50, scope="group"))
    assert [sum(GROUPS[chosen] == group) for group in (7, 9)] == [2, 2]
    assert 0 in chosen


def test_it_is_the_exact_maximiser_of_the_batch() -> None:
    values = np.random.default_rng(0).normal(size=40)
    ids = np.repeat(np.arange(5), 8)
    chosen = make(samples=30).select_samples(values, ids, 0.0, 3)
    best = max_variance_subset(torch.from_numpy(values), 12)
    assert chosen.tolist() == best.tolist()
    assert values[chosen].var() > values.var()


def test_the_schedule_is_linear_between_its_endpoints() -> None:
    values = np.random.default_rng(1).normal(size=100)
    algorithm = make(samples=[40, 90], tokens=[20, 100])
    counts = [len(algorithm.select_samples(values, np.zeros(100), p, 0)) for p in (0.0, 0.5, 1.0)]
    assert counts == [40, 65, 90]
    mask, zeros = torch.ones(100, dtype=torch.bool), torch.zeros(100, dtype=torch.int64)
    key = torch.rand(100, dtype=F64, generator=torch.Generator().manual_seed(0))
    counts = [int(algorithm.select_tokens(torch.ones(100), key, mask, zeros, p).sum()) for p in (0.0, 0.5, 1.0)]
    assert counts == [20, 60, 100]
    # 10 + 0.55 * 80 = 54, which a rounding error must not turn into 55
    assert int(make(tokens=[10, 90]).select_tokens(torch.ones(100), key, mask, zeros, 0.55).sum()) == 54


def test_a_constant_is_exact_at_every_step() -> None:
    whole, mask = make(samples=100, tokens=100), torch.ones(8, dtype=torch.bool)
    odd = make(samples=33.3, tokens=[33.3, 100])
    for step in range(100):
        progress = step / 99
        assert kept(whole, progress) == list(range(8))
        assert whole.select_tokens(torch.ones(8), None, mask, mask.long(), progress) is mask
        assert len(kept(odd, progress)) == 3
    assert odd.select_tokens(torch.ones(8), None, mask, mask.long(), 1.0) is mask


def test_ties_depend_on_the_seed_alone() -> None:
    algorithm = make(samples=25)
    assert kept(algorithm, seed=5) == kept(algorithm, seed=5)
    assert len({tuple(kept(algorithm, seed=seed)) for seed in range(30)}) == 3  # 0 and one of three equal failures


def test_the_reject_threshold_comes_first_and_the_budget_stays() -> None:
    # LOOP rejects the four zeros; half of 8 is 4, and 4 are left
    assert kept(make("loop", samples=50)) == [0, 1, 2, 3]
    # three quarters of 8 is 6, but only 4 are worth keeping
    assert kept(make("loop", samples=75)) == [0, 1, 2, 3]
    assert len(kept(make("loop", samples=25))) == 2


def test_nothing_to_learn_is_an_empty_selection() -> None:
    assert kept(make(samples=50), values=np.zeros(8)) == []
    assert kept(make(samples=50, scope="group"), values=np.zeros(8)) == []
    assert kept(make("loop", samples=50), values=np.zeros(8)) == []


def test_the_blind_control_keeps_as_many_and_never_a_zero_batch() -> None:
    algorithm = make(samples=50, rule="random")
    drawn = [kept(algorithm, seed=seed) for seed in range(200)]
    assert {len(chosen) for chosen in drawn} == {0, 4}  # 0: all four of the group without spread, 1 in 70
    assert all(ADVANTAGES[chosen].any() for chosen in drawn if chosen)
    assert len({tuple(chosen) for chosen in drawn}) > 50


def test_a_schedule_that_keeps_none_is_refused() -> None:
    with pytest.raises(AlgorithmError, match=r"5 % of a step's 8 trajectories, which is none; give at least 6.25 %"):
        kept(make(samples=5))
    with pytest.raises(AlgorithmError, match=r"10 % of a group's 4 trajectories") as caught:
        kept(make(samples=10, scope="group"))
    assert caught.value.key == "select.samples"


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"samples": [50, 2]}, True),  # 0.32 of 16 at the end
        ({"samples": [2, 50]}, True),
        ({"samples": [4, 50]}, False),  # 0.64 of 16 is one
        ({"samples": [12, 50], "scope": "group"}, True),  # 0.48 of 4
        ({"samples": [13, 50], "scope": "group"}, False),
    ],
)
def test_a_schedule_is_checked_against_the_batch_beforehand(options: dict, refused: bool) -> None:
    if not refused:
        make(**options).check_batch(4, 4)
        return
    with pytest.raises(AlgorithmError, match="which is none; give at least") as caught:
        make(**options).check_batch(4, 4)
    assert caught.value.key == "select.samples"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"samples": 101}, r"algorithm.select.samples: .* less than or equal to 100 \(given: 101\)"),
        ({"samples": [40, 120]}, r"algorithm.select.samples: .* less than or equal to 100"),
        ({"samples": 0}, r"algorithm.select.samples: .* greater than 0"),
        ({"tokens": 0}, r"algorithm.select.tokens: .* greater than 0"),
        ({"tokens": [20, 100.5]}, r"algorithm.select.tokens: .* less than or equal to 100"),
        ({"tokens": float("nan")}, r"algorithm.select.tokens: "),
        ({"tokens": [20, 50, 100]}, r"algorithm.select.tokens: "),
        ({"renormalize": True}, r"needs scope group"),
    ],
)
def test_shares_outside_their_range_are_refused(options: dict, words: str) -> None:
    with pytest.raises(AlgorithmError, match=words):
        make(**options)


def test_a_group_that_lost_members_keeps_one() -> None:
    values, ids = np.array([1.0, -1.0, 0.5, -0.5, 0.7]), np.array([1, 1, 1, 1, 2])
    chosen = make(samples=40, scope="group").select_samples(values, ids, 0.0, 0)
    assert chosen.tolist() == [0, 1, 4]  # 1.6 of 4 are 2; 0.4 of 1 would be none


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan")])
def test_progress_outside_the_run(progress: float) -> None:
    with pytest.raises(AlgorithmError, match="progress"):
        kept(make(), progress=progress)


# |A| H: sequence 0 (A = 1.5): 0.3, 1.5, 0.75; sequence 1 (A = -0.5): 0.45, 0.05, 1.0; a prompt token before each.
TOKEN_ADVANTAGES = torch.tensor([1.5] * 4 + [-0.5] * 4, dtype=F64)
ENTROPIES = torch.tensor([9.0, 0.2, 1.0, 0.5, 9.0, 0.9, 0.1, 2.0], dtype=F64)
MASK = torch.tensor([0, 1, 1, 1, 0, 1, 1, 1], dtype=torch.bool)
SEQUENCE = torch.tensor([0] * 4 + [1] * 4)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"tokens": 50}, [2, 3, 7]),  # the three largest of six: 1.5, 0.75, 1.0
        ({"tokens": 20}, [2, 7]),  # 1.2 of six, rounded up
        ({"tokens": 1}, [2]),  # never none
        ({"tokens": 50, "token_scope": "response"}, [2, 3, 5, 7]),  # 1.5 of three, rounded up, by entropy in each
        ({"tokens": 1, "token_scope": "response"}, [2, 7]),
    ],
)
def test_tokens_by_advantage_times_entropy(options: dict, expected: list[int]) -> None:
    selected = make(**options).select_tokens(TOKEN_ADVANTAGES, ENTROPIES, MASK, SEQUENCE, 0.0)
    assert selected.nonzero().squeeze(1).tolist() == expected
    assert MASK.sum() == 6  # the mask itself is not written to


def test_a_response_without_policy_tokens_disturbs_no_other() -> None:
    mask = torch.tensor([1, 1, 0, 1, 1], dtype=torch.bool)
    sequence = torch.tensor([0, 0, 1, 2, 2])
    entropies = torch.tensor([0.1, 0.2, torch.nan, 0.4, 0.3], dtype=F64)
    selected = make(tokens=50, token_scope="response").select_tokens(torch.ones(5), entropies, mask, sequence, 0.0)
    assert selected.tolist() == [False, True, False, True, False]


def test_equal_keys_go_to_the_earlier_token() -> None:
    ones = torch.ones(6, dtype=F64)
    selected = make(tokens=50).select_tokens(ones, ones, ones.bool(), torch.zeros(6, dtype=torch.int64), 0.0)
    assert selected.tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize(
    ("entropies", "mask", "words"),
    [
        (None, MASK, "no entropies were given"),
        (torch.where(torch.arange(8) == 5, torch.nan, ENTROPIES), MASK, "1 of 6 policy tokens"),
        (ENTROPIES, torch.zeros(8, dtype=torch.bool), "no policy token"),
    ],
)
def test_tokens_that_cannot_be_ranked(entropies, mask, words: str) -> None:
    with pytest.raises(AlgorithmError, match=words):
        make(tokens=50).select_tokens(TOKEN_ADVANTAGES, entropies, mask, SEQUENCE, 0.0)


@pytest.mark.parametrize("name", ["loop", "grpo", "gspo", "rloo"])
@pytest.mark.parametrize("scope", ["batch", "group"])
@pytest.mark.parametrize("extra", [{}, {"kl": 0.1, "entropy": 0.01}])
def test_everything_kept_is_the_base_bit_for_bit(name: str, scope: str, extra: dict) -> None:
    base = build(locate(name), extra)
    whole = make(name, extra, samples=100, tokens=100, scope=scope)
    groups = [make_group([1.0, 0.0, 0.0, 0.2]), make_group([0.1] * 4, 1), make_group([0.3, 0.9, 0.1], 2)]
    trajectories = [item for group in groups for item in group.trajectories]
    values = np.concatenate(base.advantages(groups))
    ids = np.repeat([0, 1, 2], [4, 4, 3])
    assert np.array_equal(values, np.concatenate(whole.advantages(groups)))
    chosen = base.select_samples(values, ids, 0.3, 1)
    assert np.array_equal(chosen, whole.select_samples(values, ids, 0.3, 1))
    final = base.kept_advantages(trajectories, values, ids, chosen)
    assert np.array_equal(final, whole.kept_advantages(trajectories, values, ids, chosen))
    assert whole.needs == base.needs

    views = random_views(2, [5] * len(chosen))
    views.advantages = torch.from_numpy(final)[views.sequence]
    assert whole.select_tokens(views.advantages, None, views.mask, views.sequence, 0.3) is views.mask
    constants = constants_of(views, nominal_sequences=11)
    results = []
    for algorithm in (base, whole):
        output = algorithm.loss(views, constants)
        results.append((output.loss, torch.autograd.grad(output.loss, views.logprobs)[0]))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_pods_takes_advantages_anew_over_what_is_kept() -> None:
    # half of {1, 1, 0, 0, 0, 0} is {1, 0, 0} or {1, 1, 0}; over {1, 0, 0}: mean 1/3, sample deviation 1/sqrt(3):
    # (2/3) sqrt(3) = 1.1547, -(1/3) sqrt(3) = -0.57735; over {1, 1, 0} the same with the other sign
    group = make_group([1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    pods = make(samples=50, tokens=100, scope="group", renormalize=True)
    (values,) = pods.advantages([group])
    ids = np.zeros(6, dtype=np.int64)
    chosen = pods.select_samples(values, ids, 0.0, 0)
    rewards = group.rewards[chosen]
    final = pods.kept_advantages(group.trajectories, values, ids, chosen)
    sign = 1 if rewards.sum() == 1 else -1
    assert len(chosen) == 3
    np.testing.assert_allclose(sorted(sign * final), [-(3**-0.5), -(3**-0.5), 2 * 3**-0.5], rtol=1e-5)


def test_without_renormalization_advantages_stay_those_of_the_whole_group() -> None:
    group = make_group([1.0, 0.0, 0.0, 0.0])
    algorithm = make(samples=50, scope="group")
    (values,) = algorithm.advantages([group])
    ids = np.zeros(4, dtype=np.int64)
    chosen = algorithm.select_samples(values, ids, 0.0, 0)
    assert algorithm.kept_advantages(group.trajectories, values, ids, chosen).tolist() == values[chosen].tolist()


def test_pods_follows_the_base_algorithm_and_spares_groups_of_one() -> None:
    # LOOP over {1, 0}: 1 - 0 and 0 - 1; a group of which one is left keeps its advantage
    pods = make("loop", samples=50, scope="group", renormalize=True)
    groups = [make_group([1.0, 0.0, 0.0, 0.0]), make_group([0.4, 0.2], 1)]
    values = np.concatenate(pods.advantages(groups))
    trajectories = [item for group in groups for item in group.trajectories]
    ids = np.array([0, 0, 0, 0, 1, 1])
    chosen = np.array([0, 2, 4])
    final = pods.kept_advantages(trajectories, values, ids, chosen)
    assert final.tolist() == pytest.approx([1.0, -1.0, 0.2], abs=1e-15)


@pytest.mark.parametrize(
    ("name", "denominator", "expected"),
    [
        ("loop", "base", -1.0 / (4 * 3)),  # LOOP's own: three policy tokens, nominally four sequences
        ("loop", "full", -1.0 / (4 * 3)),
        ("loop", "kept", -1.0),  # one kept token, one sequence
        ("grpo", "base", -1.0),  # GRPO's own
        ("grpo", "full", -1.0 / (4 * 3)),
    ],
)
def test_the_denominator_option(name: str, denominator: str, expected: float) -> None:
    views = make_views([1.0, 1.0, 1.0], [1.0], [0, 0, 0], mask=[0, 1, 0])
    output = make(name, denominator=denominator).loss(views, constants_of(views, nominal_sequences=4))
    assert output.loss.item() == pytest.approx(expected, abs=1e-15)
    # the average change of weight: 1, or 4 times fewer sequences and 3 times fewer tokens
    assert output.sums["selection_gain"].item() == (1.0 if expected > -1 else 12.0)


def test_describe_shows_both_endpoints() -> None:
    facts = make(samples=[40, 90], tokens=[20, 100], scope="group").describe()
    assert facts["kept samples"] == "40 % -> 90 % of each group"
    assert facts["kept tokens"] == "20 % -> 100 % (pooled)"
