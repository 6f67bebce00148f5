"""Rollout files hold a trajectory whole, and nothing but it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from rlpost.report import RolloutWriter, read_rollouts, rollout_record
from rlpost.report.rollouts import rollout_files
from rlpost.rollout.trajectory import StopReason, Trajectory, Turn
from tests.report.synthetic import LearnedFromAll, Vocabulary, hostile_trajectory, play


def small() -> Trajectory:
    """Two prompt tokens, two sampled ones, an observation, one sampled."""
    return Trajectory(
        token_ids=np.array([5, 6, 7, 8, 9, 7], dtype=np.int32),
        policy_mask=np.array([0, 0, 1, 1, 0, 1], dtype=np.bool_),
        rollout_logprobs=np.array([np.nan, np.nan, -0.5, -0.25, np.nan, -1e-7], dtype=np.float32),
        versions=np.array([-1, -1, 3, 3, -1, 4], dtype=np.int32),
        turns=[Turn(2, 4), Turn(5, 6, truncated=True)],
        reward=0.75,
        reward_parts={"format": 0.25, "answer": 0.5},
        success=False,
        stop=StopReason.TOKEN_LIMIT,
        task_id="t-1",
        group_id=12,
        index=3,
        seed=2**62,
        source="unit",
        metrics={"calls": 2.0},
        wall_s=0.123456,
    )


def test_a_record_holds_everything_of_a_trajectory() -> None:
    learner = np.array([np.nan, np.nan, -0.5, -0.5, np.nan, -0.125], dtype=np.float32)
    record = rollout_record(7, small(), ["a", "b", "c", "d", "e", "c"], -0.5, True, learner)
    assert record == {
        "step": 7,
        "task_id": "t-1",
        "group_id": 12,
        "index": 3,
        "seed": 2**62,
        "source": "unit",
        "scenario": "",
        "difficulty": 0,
        "reward": 0.75,
        "reward_parts": {"format": 0.25, "answer": 0.5},
        "success": False,
        "stop": "token_limit",
        "advantage": -0.5,
        "kept": True,
        "text": "abcdec",
        "turns": [[2, 4, False], [5, 6, True]],
        "token_ids": [5, 6, 7, 8, 9, 7],
        "tokens": ["a", "b", "c", "d", "e", "c"],
        "policy_mask": [0, 0, 1, 1, 0, 1],
        "rollout_logprobs": [None, None, -0.5, -0.25, None, -1e-7],
        "learner_logprobs": [None, None, -0.5, -0.5, None, -0.125],
        "versions": [-1, -1, 3, 3, -1, 4],
        "metrics": {"calls": 2.0},
        "error": "",
        "wall_s": 0.123,
    }
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_what_was_not_computed_is_null() -> None:
    trajectory = small()
    trajectory.reward = math.nan
    record = rollout_record(0, trajectory, list("abcdec"), math.nan, False, None)
    assert record["learner_logprobs"] == [None] * 6
    assert record["advantage"] is None
    assert record["reward"] is None


@pytest.mark.parametrize(("tokens", "learner"), [(5, 6), (6, 5)])
def test_lengths_must_agree(tokens: int, learner: int) -> None:
    with pytest.raises(ValueError, match="'t-1'"):
        rollout_record(0, small(), ["x"] * tokens, 0.0, True, np.zeros(learner, dtype=np.float32))


def test_files_are_one_a_step_and_limited(tmp_path: Path) -> None:
    vocabulary, rng = Vocabulary(), np.random.default_rng(0)
    writer = RolloutWriter(tmp_path, vocabulary, limit=3)
    for step in (2, 12):
        batch = [play(vocabulary, rng, step, 0, index, 0.5) for index in range(5)]
        path = writer.write(step, batch, [0.0, 1.0, -1.0, 0.5, 0.5], LearnedFromAll(np.array([1, 2, 4]), [None] * 5))
        assert path == tmp_path / "rollouts" / f"step-{step:06d}.jsonl"
    assert [step for step, _ in rollout_files(tmp_path)] == [2, 12]
    records = list(read_rollouts(tmp_path, 12))
    assert [(one["index"], one["kept"], one["advantage"]) for one in records] == [
        (0, False, 0.0),
        (1, True, 1.0),
        (2, True, -1.0),
    ]
    assert all("".join(one["tokens"]) == one["text"] and one["text"].startswith("<|user|>") for one in records)
    assert len(list(read_rollouts(tmp_path))) == 6


def test_a_limit_of_zero_writes_nothing(tmp_path: Path) -> None:
    writer = RolloutWriter(tmp_path, Vocabulary(), limit=0)
    assert writer.write(0, [small()], [0.0], LearnedFromAll(np.array([0]), [None])) is None
    assert rollout_files(tmp_path) == []


def test_resuming_removes_files_of_the_resumed_step_and_later_ones(tmp_path: Path) -> None:
    def decode(ids: list[int]) -> list[str]:
        return [str(token) for token in ids]

    writer = RolloutWriter(tmp_path, decode)
    for step in range(4):
        writer.write(step, [small()], [0.0], LearnedFromAll(np.array([0]), [None]))
    RolloutWriter(tmp_path, decode, first_step=2)
    assert [step for step, _ in rollout_files(tmp_path)] == [0, 1]


def test_arguments_of_different_lengths_are_refused(tmp_path: Path) -> None:
    writer = RolloutWriter(tmp_path, Vocabulary())
    with pytest.raises(ValueError, match="1 trajectories, 2 advantages, 1 log-probs"):
        writer.write(0, [small()], [0.0, 1.0], LearnedFromAll(np.array([0]), [None]))


def test_hostile_text_is_kept_as_it_was(tmp_path: Path) -> None:
    vocabulary, rng = Vocabulary(), np.random.default_rng(0)
    made = hostile_trajectory(vocabulary, rng, 0)
    made.error += "\udcff"  # what Python makes of a file name that is not UTF-8
    RolloutWriter(tmp_path, vocabulary).write(0, [made], [math.nan], LearnedFromAll(np.array([], dtype=int), [None]))
    (record,) = read_rollouts(tmp_path)
    assert record["error"] == made.error
    assert record["text"].endswith("\u202e\0 naïve 🦊")
