"""Advantages against values worked out by hand."""

import pytest
import torch

from rlpost.algorithms.advantages import centered, divide_by_std, group_normalized, leave_one_out, overlong_penalty
from rlpost.algorithms.base import AlgorithmError

F64 = torch.float64
ONE_OF_FOUR = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=F64)
ALL_OF_THEM = [centered, leave_one_out, group_normalized]


def close(actual: torch.Tensor, expected: list[float], tolerance: float = 1e-14) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=F64), rtol=0, atol=tolerance)


def test_centered_subtracts_the_mean() -> None:
    # mean 1/4
    close(centered(ONE_OF_FOUR), [0.75, -0.25, -0.25, -0.25])


def test_leave_one_out_compares_with_the_mean_of_the_others() -> None:
    # first: others' mean 0 -> 1 - 0; each other: (1 + 0 + 0) / 3 -> 0 - 1/3
    close(leave_one_out(ONE_OF_FOUR), [1.0, -1 / 3, -1 / 3, -1 / 3])
    # 0.5 - (0.2 + 0.8)/2 = 0; 0.2 - (0.5 + 0.8)/2 = -0.45; 0.8 - (0.5 + 0.2)/2 = 0.45
    close(leave_one_out(torch.tensor([0.5, 0.2, 0.8], dtype=F64)), [0.0, -0.45, 0.45])


@pytest.mark.parametrize("count", [2, 3, 6, 17])
def test_leave_one_out_equals_its_definition(count: int) -> None:
    rewards = torch.rand(count, dtype=F64, generator=torch.Generator().manual_seed(count))
    by_definition = [float(rewards[k] - (rewards.sum() - rewards[k]) / (count - 1)) for k in range(count)]
    close(leave_one_out(rewards), by_definition)
    close(leave_one_out(rewards), (count / (count - 1) * (rewards - rewards.mean())).tolist())


def test_group_normalized_divides_by_the_sample_deviation() -> None:
    # squares about 1/4: 0.5625 + 3 * 0.0625 = 0.75; / (4 - 1) = 0.25, root 0.5; 0.75 / 0.5 = 1.5, -0.25 / 0.5 = -0.5
    close(group_normalized(ONE_OF_FOUR, eps=0.0), [1.5, -0.5, -0.5, -0.5])
    # eps is added to the deviation: 0.75 / (0.5 + 0.25) = 1
    close(group_normalized(ONE_OF_FOUR, eps=0.25), [1.0, -1 / 3, -1 / 3, -1 / 3])


def test_group_normalized_with_the_population_deviation() -> None:
    # 0.75 / 4 = 3/16, root sqrt(3)/4; (3/4) / (sqrt(3)/4) = sqrt(3), -(1/4) / (sqrt(3)/4) = -1/sqrt(3)
    close(group_normalized(ONE_OF_FOUR, eps=0.0, ddof=0), [3**0.5] + [-(3**-0.5)] * 3)


def test_any_baseline_may_be_divided() -> None:
    close(divide_by_std(leave_one_out(ONE_OF_FOUR), ONE_OF_FOUR, eps=0.0), [2.0, -2 / 3, -2 / 3, -2 / 3])


@pytest.mark.parametrize("advantage", ALL_OF_THEM)
@pytest.mark.parametrize("rewards", [[0.7], [0.1, 0.1, 0.1], [-3.0, -3.0]])
def test_without_spread_it_is_exactly_zero(advantage, rewards: list[float]) -> None:
    # 0.1 three times: the float mean is not 0.1, so this fails wherever the mean is subtracted blindly
    assert advantage(torch.tensor(rewards, dtype=F64)).tolist() == [0.0] * len(rewards)


@pytest.mark.parametrize("advantage", ALL_OF_THEM)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_kept(advantage, dtype: torch.dtype) -> None:
    assert advantage(torch.tensor([1.0, 0.0], dtype=dtype)).dtype is dtype
    assert advantage(torch.tensor([1.0], dtype=dtype)).dtype is dtype


@pytest.mark.parametrize("advantage", ALL_OF_THEM)
@pytest.mark.parametrize(
    ("rewards", "words"),
    [
        (torch.zeros(0), "without trajectories"),
        (torch.tensor([1, 0]), "floating"),
        (torch.zeros(2, 2), "shape"),
        (torch.tensor([1.0, torch.nan]), "not all finite"),
    ],
)
def test_bad_rewards_are_refused_in_words(advantage, rewards: torch.Tensor, words: str) -> None:
    with pytest.raises(AlgorithmError, match=words):
        advantage(rewards)


def test_overlong_penalty_grows_over_the_buffer() -> None:
    # max 100, buffer 20: free up to 80; at 85 (100 - 20 - 85) / 20 = -0.25; at 100 and beyond -1
    lengths = torch.tensor([1.0, 80.0, 85.0, 100.0, 400.0], dtype=F64)
    close(overlong_penalty(lengths, max_tokens=100, buffer=20), [0.0, 0.0, -0.25, -1.0, -1.0])
