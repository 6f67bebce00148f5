"""Single-turn tasks: prompts from columns, rewards of both kinds, and bad ones named with their task."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rlpost.envs.base import EnvError, Score, Task
from rlpost.envs.single_turn import SingleTurn
from rlpost.reward.plugins import Plugin
from rlpost.reward.score import RewardError
from rlpost.rollout.chat import TemplateFormat
from rlpost.rollout.config import RolloutConfig
from rlpost.rollout.env_session import EnvFactory
from rlpost.rollout.env_threads import EnvThreads
from rlpost.rollout.episode import play
from rlpost.rollout.specs import EpisodeSpec
from rlpost.rollout.trajectory import StopReason, Trajectory
from tests.support.engines import ScriptedEngine, sample_of
from tests.support.tokenizers import byte_tokenizer

ROW: dict[str, Any] = {"prompt": "2 + 2?", "answer": "4", "level": 3}
REWARDS = """
from rlpost.reward.score import Score

def own(completion, task):
    return float(completion == task["answer"])

def scored(completion, task):
    return Score(0.5, {"asked": float(task["prompt"] == "Level 3: 4?")}, success=True)

def trl(prompts, completions, answer, **columns):
    assert len(prompts) == len(completions) == len(answer) == len(columns["level"]) == 1
    said = completions[0] if isinstance(completions[0], str) else completions[0][0]["content"]
    return [2.0 if said == answer[0] and prompts[0] else -1.0]

def raises(completion, task):
    return 1 / (len(completion) - len(completion))

def nan(completion, task):
    return float("nan")

def short(prompts, completions, **columns):
    return []

def word(completion, task):
    return "good"
"""


@pytest.fixture
def rewards(tmp_path: Path) -> str:
    path = tmp_path / "rewards.py"
    path.write_text(REWARDS)
    return str(path)


def _score(reward: str | Plugin, answer: str = "4", row: dict[str, Any] = ROW, **options: Any) -> Score:
    env = SingleTurn(Task("t1", row), 0, reward, **options)
    env.start()
    assert env.step(answer).done
    return env.score()


def test_prompts_are_columns_messages_or_a_template() -> None:
    def start(row: dict[str, Any], **options: Any) -> Any:
        return SingleTurn(Task("t1", row), 0, "math", **options).start()

    system = {"role": "system", "content": "Be brief."}
    user = {"role": "user", "content": "2 + 2?"}
    assert start(ROW) == [user]
    assert start(ROW, system_prompt="Be brief.") == [system, user]
    assert start({"question": "2 + 2?"}, prompt="question") == [user]
    assert start({"prompt": [user]}, system_prompt="Be brief.") == [system, user]
    assert start({"prompt": [system, user]}, system_prompt="Be long.") == [system, user]
    assert start(ROW, template="Level {level}: {{{prompt}}}") == [{"role": "user", "content": "Level 3: {2 + 2?}"}]


@pytest.mark.parametrize(
    ("row", "options", "words"),
    [
        ({"question": "?"}, {}, "task 't1' has no column 'prompt'; it has: question"),
        ({"prompt": 3}, {}, "column 'prompt' of task 't1' is neither text nor a list"),
        ({"prompt": []}, {}, "is neither text nor a list"),
        ({"prompt": [{"role": "user"}]}, {}, "is neither text nor a list"),
        (ROW, {"template": "{question}"}, "cannot be filled for task 't1': KeyError: 'question'"),
        (ROW, {"template": "{"}, "cannot be filled for task 't1': ValueError"),
    ],
)
def test_missing_or_odd_columns_are_named(row: dict[str, Any], options: dict[str, Any], words: str) -> None:
    with pytest.raises(EnvError, match=words):
        SingleTurn(Task("t1", row), 0, "math", **options).start()


def test_own_rewards_see_the_columns_and_what_was_asked(rewards: str) -> None:
    assert _score(f"{rewards}:own") == Score(1.0)
    assert _score(f"{rewards}:own", "5") == Score(0.0)
    template = _score(f"{rewards}:scored", template="Level {level}: {answer}?")
    assert template == Score(0.5, {"asked": 1.0}, success=True)


def test_rewards_in_trls_shape_see_columns_as_lists(rewards: str) -> None:
    assert _score(f"{rewards}:trl").reward == 2.0
    assert _score(f"{rewards}:trl", "5").reward == -1.0
    chat = ROW | {"prompt": [{"role": "user", "content": "2 + 2?"}]}
    assert _score(f"{rewards}:trl", row=chat).reward == 2.0


def test_a_built_in_reward_goes_by_its_name() -> None:
    row = {"prompt": "Make 10 of 4 and 6.", "numbers": [4, 6], "target": 10}
    assert _score("countdown", "<answer>4 + 6</answer>", row).reward == 1.0


def test_a_located_reward_needs_its_file_no_more(rewards: str) -> None:
    plugin = Plugin.locate(f"{rewards}:own")
    Path(rewards).unlink()
    assert _score(plugin).reward == 1.0


@pytest.mark.parametrize(
    ("function", "words"),
    [("raises", "ZeroDivisionError"), ("nan", "nan"), ("short", "0 numbers for 1 completion"), ("word", "'good'")],
)
def test_a_reward_bug_names_function_and_task(rewards: str, function: str, words: str) -> None:
    with pytest.raises(RewardError, match=rf"rewards\.py:{function}'.*task 't1'.*{words}"):
        _score(f"{rewards}:{function}")


def _play(reward: str, template: str | None = None) -> Trajectory:
    tokenizer = byte_tokenizer()
    answer = [*tokenizer("4", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    engine = ScriptedEngine(lambda request: sample_of(answer))
    factory = EnvFactory(SingleTurn, {"reward": reward, "template": template})
    spec = EpisodeSpec(Task("t1", ROW), 0, 0, seed=0)
    return asyncio.run(play(factory, engine, TemplateFormat(tokenizer), RolloutConfig(), spec, EnvThreads()))


def test_in_an_episode_a_reward_bug_is_marked_and_a_task_fault_is_not(rewards: str) -> None:
    right = _play(f"{rewards}:own")
    assert (right.reward, right.success, right.stop, len(right.turns)) == (1.0, True, StopReason.DONE, 1)
    assert _play(f"{rewards}:nan").error.startswith("reward: SingleTurn.score of task 't1': reward function")
    assert _play("no_such").error.startswith("reward: SingleTurn.__init__ of task 't1': there is no reward function")
    unfilled = _play(f"{rewards}:own", template="{question}")
    assert unfilled.stop is StopReason.ENV_FAILED
    assert unfilled.error.startswith("SingleTurn.start of task 't1' raised EnvError: env.options.template")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"question": "?", "answer": "4"}], "has no column 'prompt'"),
        ([ROW, ROW | {"answer": None}], "env.options.reward: reward function 'math': the reference answer is empty"),
        ([ROW, ROW | {"answer": "{"}], "row 1: no answer can be judged by the reference"),
    ],
)
def test_rows_are_checked_before_any_is_played(rows: list[dict[str, Any]], words: str) -> None:
    SingleTurn.check_tasks([Task("t1", ROW)], reward="math")
    with pytest.raises(EnvError, match=words):
        SingleTurn.check_tasks([Task(f"t{i}", row) for i, row in enumerate(rows)], reward="math")
