"""Countdown: golden rewards by hand, and answers that try to be clever."""

from __future__ import annotations

import pytest

from rlpost.reward import countdown
from rlpost.reward.score import RewardError

NUMBERS, TARGET = [3, 5, 7, 25], 75


def answer(expression: str) -> str:
    return f"<reasoning>Let me see.</reasoning>\n<answer>{expression}</answer>"


@pytest.mark.parametrize(
    ("expression", "numbers", "target"),
    [
        ("25 * (7 - 5) + 25", [25, 25, 7, 5], 75),
        ("(7 + 5) * 25 / 3 - 25", [3, 5, 7, 25, 25], 75),
        ("25 * 3", [3, 25], 75),
        ("3 * 25", [25, 3], 75),
        ("1 / 3 * 3", [1, 3, 3], 1),  # exact only in fractions
        ("8 / (3 - 8 / 3)", [8, 3, 8, 3], 24),
        ("((((2))))", [2], 2),
        ("1\n+ 2", [1, 2], 3),
        ("-3 + 10", [3, 10], 7),
        ("0 * 5", [0, 5], 0),
    ],
)
def test_solved(expression: str, numbers: list[int], target: int) -> None:
    score = countdown.score(answer(expression), numbers, target)
    assert (score.reward, score.parts, score.solved) == (1.0, {"exact": 1.0, "answered": 1.0}, True)


@pytest.mark.parametrize(
    "expression",
    [
        "25 * 3",  # leaves numbers out
        "25 * 3 + 7 - 5 - 2",  # a number that was not given
        "25 * 3 * (7 - 5 - 5 + 5) / (7 - 5)",  # numbers twice
        "3 + 5 + 7 + 25",  # another value
        "75",
        "25 * 3 = 75",
        "",
        "no idea",
        "25 * (3",
        "25 3 5 7",
        "3 / (5 - 5)",
        "25 ** 3",
        "25 // 3",
        "25 % 3",
        "0x4b",
        "7_5",
        "7.5e1",
        "025 * 3",
        "3, 25",
        "(lambda: 75)()",
        "__import__('os').system('true')",
        "9 ** 9 ** 9 ** 9",
        "(" * 100 + "1" + ")" * 100,
        "-" * 250 + "1",
        "1" * 290,
        "1+" * 140 + "1",
        "٣ * 25",
    ],
)
def test_an_answer_that_does_not_solve_it(expression: str) -> None:
    score = countdown.score(answer(expression), NUMBERS, TARGET)
    assert (score.reward, score.parts, score.solved) == (0.1, {"exact": 0.0, "answered": 1.0}, False)


@pytest.mark.parametrize("text", ["", "25 * 3", "<answer>25 * 3", "25 * 3</answer>", "<ANSWER>25 * 3</ANSWER>"])
def test_no_answer(text: str) -> None:
    score = countdown.score(text, [3, 25], TARGET)
    assert (score.reward, score.parts, score.solved) == (0.0, {"exact": 0.0, "answered": 0.0}, False)


def test_the_last_answer_counts() -> None:
    assert countdown.score(answer("1") + answer("25 * 3"), [3, 25], 75).reward == 1.0
    assert countdown.score(answer("25 * 3") + answer("1"), [3, 25], 75).reward == 0.1
    assert countdown.score("<answer> I think <answer>25 * 3</answer>", [3, 25], 75).reward == 1.0


def test_columns() -> None:
    assert countdown.reward(answer("25 * 3"), {"nums": (3, 25), "target": 75}).solved
    with pytest.raises(RewardError, match="no column 'target'; it has: numbers"):
        countdown.reward("", {"numbers": [1]})


@pytest.mark.parametrize(
    ("numbers", "target"), [(["3"], 3), ([3.0], 3), ([True], 1), ([-1], 1), ([3], "3"), ([3], None)]
)
def test_bad_tasks_are_errors(numbers: list[int], target: int) -> None:
    with pytest.raises(RewardError, match="whole numbers"):
        countdown.score(answer("3"), numbers, target)
