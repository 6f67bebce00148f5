"""Reward functions of both kinds, and every way they can go wrong."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlpost.reward import sandbox
from rlpost.reward.functions import REWARDS, RewardFunction, load_reward
from rlpost.reward.plugins import Plugin
from rlpost.reward.sandbox import SandboxError, launcher
from rlpost.reward.score import RewardError, Score

TASK = {"prompt": "What is 2 + 2?", "answer": "4", "level": 3}


def asked(function: Any, task: dict[str, Any] = TASK, text: str = "It is 4.") -> Score:
    return RewardFunction(function, "mine.py:f")(text, task, "task-7")


def test_our_own_kind() -> None:
    assert asked(lambda completion, task: len(completion) + task["level"]) == Score(11.0)
    score = Score(0.5, {"format": 0.5}, success=True)
    assert asked(lambda completion, task: score) is score


@pytest.mark.parametrize("value", [1, 1.0, True, np.float32(1), np.int64(1), np.bool_(True)])
def test_kinds_of_numbers(value: Any) -> None:
    score = asked(lambda completion, task: value)
    assert score.reward == 1.0
    assert type(score.reward) is float


def test_a_sandbox_that_fails_costs_a_second_call_and_then_an_error_of_its_own() -> None:
    failures = [SandboxError("the sandbox's keeper died")] * 3

    def judge(completion: str, task: dict[str, Any]) -> float:
        if failures:
            raise failures.pop()
        return 1.0

    with pytest.raises(SandboxError, match="keeper died"):
        asked(judge)
    assert asked(judge) == Score(1.0)  # the first of two calls fails


@pytest.mark.skipif(sandbox.isolation() is None, reason=sandbox.isolation_problem())
def test_killed_keepers_cost_nobody_a_reward() -> None:
    task = {"test_list": ["assert f() == 1"]}
    judge = load_reward("code")
    assert judge("def f(): return 1", task, "t").reward == 1.0
    for victim in _keepers():
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)  # of the sessions that wait for the next answer
    assert judge("def f(): return 1", task, "t").reward == 1.0


def _keepers() -> list[int]:
    """Children of this process's zygotes."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    zygotes = {zygote.process.pid for zygote in launcher._zygotes.values()}
    return [pid for pid, parent in parents.items() if parent in zygotes]


def test_the_task_cannot_be_changed() -> None:
    asked(lambda completion, task: len(task) + bool(task.clear()))
    assert len(TASK) == 3


def test_trl_kind() -> None:
    def f(prompts: list[str], completions: list[str], answer: list[str], **kwargs: Any) -> list[float]:
        assert (prompts, completions, answer) == (["What is 2 + 2?"], ["It is 4."], ["4"])
        assert kwargs == {"level": [3]}
        return [float(a in c) for c, a in zip(completions, answer, strict=True)]

    assert asked(f) == Score(1.0)


def test_trl_kind_without_prompts_or_columns() -> None:
    def f(completions: list[str]) -> list[float]:
        return [float(len(c)) for c in completions]

    assert asked(f) == Score(8.0)


def test_trl_kind_in_conversation() -> None:
    def f(prompts: list[Any], completions: list[Any], **kwargs: Any) -> list[float]:
        assert prompts == [[{"role": "user", "content": "2 + 2?"}]]
        return [float(completion[0]["content"] == "It is 4.") for completion in completions]

    assert asked(f, {"prompt": [{"role": "user", "content": "2 + 2?"}]}) == Score(1.0)


def test_trl_kind_may_return_an_array() -> None:
    assert asked(lambda completions, **kwargs: np.array([0.25])) == Score(0.25)


def _raises(completion: str, task: dict[str, Any]) -> float:
    raise ZeroDivisionError("by zero")


def _exits(completion: str, task: dict[str, Any]) -> float:
    raise SystemExit(0)


BAD = {
    "raising": (_raises, r"raised on task 'task-7': ZeroDivisionError: by zero \(.*test_functions.py:\d+\)"),
    "exiting": (_exits, "raised on task 'task-7': SystemExit: 0"),
    "nan": (lambda completion, task: float("nan"), "not a finite number"),
    "infinite": (lambda completion, task: -float("inf"), "not a finite number"),
    "too large": (lambda completion, task: 10**400, "OverflowError"),
    "none": (lambda completion, task: None, r"must return a number or a Score, not None \(NoneType\)"),
    "text": (lambda completion, task: "1.0", r"not '1.0' \(str\)"),
    "complex": (lambda completion, task: 1j, r"not 1j \(complex\)"),
    "list": (lambda completion, task: [1.0], r"not \[1.0\] \(list\)"),
    "nan part": (lambda completion, task: Score(1.0, {"format": float("nan")}), "part 'format' of its score is nan"),
    "text part": (lambda completion, task: Score(1.0, {"format": "x"}), "part 'format' of its score is 'x'"),  # type: ignore[dict-item]
    "batch: nan": (lambda completions, **kwargs: [float("nan")], "not a finite number"),
    "batch: none": (lambda completions, **kwargs: [None], r"must return a number, not None"),
    "batch: too few": (lambda completions, **kwargs: [], "0 numbers for 1 completion"),
    "batch: too many": (lambda completions, **kwargs: [1.0, 2.0], "2 numbers for 1 completion"),
    "batch: a number": (lambda completions, **kwargs: 1.0, r"must return a list .* not 1.0 \(float\)"),
    "batch: an array of no dimension": (lambda completions, **kwargs: np.array(1.0), "for 1 completion"),
    "batch: text": (lambda completions, **kwargs: "1", "must return a list"),
    "batch: nothing": (lambda completions, **kwargs: None, "must return a list"),
    "batch: missing column": (lambda completions, gold: [1.0], "needs the column 'gold'; the task has: prompt, answer"),
}


@pytest.mark.parametrize(("function", "says"), BAD.values(), ids=BAD.keys())
def test_what_goes_wrong_is_one_clear_error(function: Any, says: str) -> None:
    with pytest.raises(RewardError, match=says) as error:
        asked(function)
    assert "'mine.py:f'" in str(error.value)
    assert "'task-7'" in str(error.value)


async def _coroutine(completion: str, task: dict[str, Any]) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda: 1.0, r"takes \(\); it must be f\(completion, task\) or TRL's"),
        (lambda a, b, c: 1.0, r"takes \(a, b, c\)"),
        (3.0, r"is not a reward function but 3.0 \(float\)"),
        (dict, "is not a reward function but <class 'dict'>"),
        (_coroutine, "write it with a plain def"),
    ],
)
def test_what_is_no_reward_function(function: Any, says: str) -> None:
    with pytest.raises(RewardError, match=says):
        RewardFunction(function, "mine.py:f")


def test_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def length(completion, task):\n    return len(completion)\n\ndef broken(completion, task):\n    1 / 0\n"
    )
    assert load_reward(f"{file}:length")("four", {}, "t") == Score(4.0)
    assert load_reward(Plugin.locate(f"{file}:length"))("four", {}, "t") == Score(4.0)
    with pytest.raises(RewardError, match=rf"ZeroDivisionError: division by zero \({file}:5\)"):
        load_reward(f"{file}:broken")("four", {}, "t")


@pytest.mark.parametrize("name", REWARDS.names)
def test_built_in_names(name: str) -> None:
    assert load_reward(name).name == name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("maths", "there is no reward function 'maths'; did you mean 'math'"),
        ("zzz", "known: code, countdown, gsm8k, math, math_boxed, math_marked, sudoku"),
        ("rlpost.reward.countdown:nothing", "rlpost.reward.countdown has no 'nothing'"),
        ("no_such_module:f", "cannot import no_such_module"),
        ("missing.py:f", "no file missing.py"),
    ],
)
def test_names_of_nothing(name: str, says: str) -> None:
    with pytest.raises(RewardError, match=says):
        load_reward(name)


def test_a_built_in_names_the_missing_column() -> None:
    with pytest.raises(RewardError, match="'countdown' on task 't9': the task has no column 'numbers' or 'nums'"):
        load_reward("countdown")("", {"question": ""}, "t9")
