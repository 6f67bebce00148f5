"""Countdown's own tasks: solvable, disjoint, the same for every seed where held out; honest demonstrations."""

from __future__ import annotations

import re

import pytest

from rlpost.envs.base import EnvError
from rlpost.envs.countdown import Countdown, Puzzles
from rlpost.reward.countdown import evaluate

OPTIONS = {"numbers": 3, "highest": 9, "operators": "+-"}


def sets(split: str, seed: int) -> set[tuple[int, ...]]:
    return {tuple(sorted(task.data["numbers"])) for task in Countdown.tasks(split, seed, **OPTIONS)}


def play(answer: str, **options: object) -> float:
    task = next(iter(Countdown.tasks("train", 0)))
    task.data.update(numbers=[3, 7, 5], target=5)
    episode = Countdown(task, 0, **options)
    assert episode.step(answer).done
    return episode.score().reward


def test_no_set_of_numbers_is_on_both_sides() -> None:
    train, held_out = sets("train", 1), sets("eval", 1)
    shown = Countdown.demonstrations("check", 1, 300, **OPTIONS)
    check = {tuple(sorted(map(int, re.findall(r"\d+", one.messages[1]["content"])))) for one in shown}
    assert len(train) > 100
    assert len(held_out) > 10
    assert not train & held_out
    assert not check & (train | held_out)
    assert sets("eval", 2) == held_out
    assert Countdown.tasks("train", 2) != Countdown.tasks("train", 1)


def test_tasks_are_distinct_and_as_many_as_asked_for_or_as_there_are() -> None:
    tasks = Countdown.tasks("train", 0, size=50, **OPTIONS)
    assert len({task.id for task in tasks}) == 50
    assert 4 < len(Countdown.tasks("train", 0, numbers=2, highest=3, operators="+")) < 10


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
def test_a_share_of_the_demonstrations_is_right_and_the_others_use_a_number_twice(share: float) -> None:
    right = 0
    for one in Countdown.demonstrations("train", 0, 400, terse=True, expert_share=share, **OPTIONS):
        question, answer = (message["content"] for message in one.messages)
        given, _, target = question.partition("=")
        numbers = [int(number) for number in given.split()]
        value, used = evaluate(answer)
        if used == numbers:
            assert value == int(target)
            right += 1
        else:
            assert used == [*numbers, numbers[0]]
            assert value == int(target) + numbers[0]
    assert right / 400 == pytest.approx(share, abs=0.08)


@pytest.mark.parametrize(
    ("answer", "reward"),
    [("3+7-5", 1.0), ("7+3-5", 1.0), ("(3+7)-5", 1.0), ("3+7+5", 0.0), ("5", 0.0), ("10-5", 0.0), ("what", 0.0)],
)
def test_an_answer_is_judged_whole_or_between_its_tags(answer: str, reward: float) -> None:
    assert play(answer, terse=True) == reward
    assert play(f"it is <answer>{answer}</answer>") == reward
    assert play(answer) == 0.0


def test_the_two_ways_to_ask() -> None:
    assert Puzzles(terse=True).question([3, 7, 5], 5)["content"] == "3 7 5=5"
    assert "numbers 3, 7, 5 exactly once" in Puzzles().question([3, 7, 5], 5)["content"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"numbers": 1}, "numbers=1"),
        ({"operators": "+%"}, "operators='\\+%'"),
        ({"operators": ""}, "operators=''"),
        ({"expert_share": 1.5}, "expert_share is 1.5"),
        ({"nubmers": 3}, "did you mean 'numbers'"),
    ],
)
def test_options_that_allow_no_task(options: dict, words: str) -> None:
    with pytest.raises(EnvError, match=words):
        Countdown.tasks("train", 0, **options)


def test_there_is_no_other_split() -> None:
    with pytest.raises(EnvError, match="no split 'dev'"):
        Countdown.tasks("dev", 0)
