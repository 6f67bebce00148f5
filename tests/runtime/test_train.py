"""Whole runs on real actors: what is written, that it is reproducible, and that it goes on where it stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rlpost import runfolder
from rlpost.recipe import LoadedRecipe
from rlpost.runfolder import RunFolder, reopen
from rlpost.train import Resume

from .conftest import rows

Make = Callable[..., LoadedRecipe]
Run = Callable[..., RunFolder]

KEYS = [
    "step",
    "policy_version",
    "lag",
    "reward/mean",
    "reward/std",
    "success/mean",
    "loss",
    "grad_norm",
    "kl_old",
    "clip_fraction",
    "entropy",
    "gap/logprob_abs",
    "gap/kl",
    "offpolicy/ess",
    "offpolicy/kl",
    "time/rollout_s",
    "time/learn_s",
    "time/sync_s",
    "time/step_s",
    "tokens/rollout",
    "tokens/learned",
    "episodes",
    "episodes/failed",
    "engine/prefix_cache_hit_rate",
    "engine/tokens_a_step",
]

REWARD = """
def first_letter(prompts, completions, **columns):
    return [sum(map(ord, str(text))) % 7 / 7 for text in completions]
"""

ALGORITHM = """
import numpy as np

from rlpost.algorithms.base import Algorithm, LossOutput


class Reinforce(Algorithm):
    def advantages(self, groups):
        baseline = np.mean([reward for group in groups for reward in group.rewards])
        return [group.rewards - baseline for group in groups]

    def loss(self, views, constants):
        terms = -(views.advantages * views.logprobs)[views.mask]
        return LossOutput(terms.sum() / constants.tokens)
"""


@pytest.fixture
def single_turn(tmp_path: Path, small_recipe: Make) -> Make:
    """A single-turn recipe with data and a TRL-style reward in files outside the checkout."""
    data = [{"id": str(n), "prompt": f"say {n}"} for n in range(12)]
    for split, part in (("train", data[:8]), ("eval", data[8:])):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    (tmp_path / "mine.py").write_text(REWARD)

    def make(*overrides: str) -> LoadedRecipe:
        return small_recipe(
            "env={name: rlpost.envs.single_turn:SingleTurn, options: {reward: mine.py:first_letter}}",
            f"data={{train: {tmp_path}/train.jsonl, eval: {tmp_path}/eval.jsonl}}",
            "rollout.max_turns=1",
            *overrides,
        )

    return make


def test_a_run_writes_what_it_promises(single_turn: Make, run: Run) -> None:
    folder = run(single_turn("eval.episodes=8", "algorithm.minibatches=2", "save.rollouts=3"))
    found = rows(folder)
    assert [row["step"] for row in found] == [0, 1]
    assert all(key in row for key in KEYS for row in found)
    assert all(row["gap/logprob_abs"] < 1e-4 for row in found)
    assert all(row["lag"] == 0 and row["episodes"] == 16 and row["episodes/failed"] == 0 for row in found)
    result = json.loads(folder.result.read_text())
    assert result["steps"] == 2
    assert result["eval_before"]["episodes"] == result["eval_after"]["episodes"] == 8
    assert (folder.path / "report.html").stat().st_size > 10_000
    assert {step for step, _ in folder.checkpoints()} == {2}
    kept = [json.loads(line) for line in (folder.path / "rollouts" / "step-000001.jsonl").read_text().splitlines()]
    assert len(kept) == 3
    for record in kept:
        assert len(record["token_ids"]) == len(record["policy_mask"]) == len(record["rollout_logprobs"])
        assert sum(record["policy_mask"]) > 0


def test_an_algorithm_from_a_file_outside_the_checkout(tmp_path: Path, single_turn: Make, run: Run) -> None:
    (tmp_path / "my_algo.py").write_text(ALGORITHM)
    folder = run(single_turn("algorithm={name: my_algo.py:Reinforce}"))
    assert all(row["loss"] is not None and row["grad_norm"] > 0 for row in rows(folder))


@pytest.mark.slow
def test_deterministic_runs_are_identical_and_resume_is_exact(
    single_turn: Make, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runfolder, "KEPT", 3)
    overrides = ("deterministic=true", "steps=3", "save.every=1", "algorithm.minibatches=2")
    whole = run(single_turn(*overrides), "whole")
    again = run(single_turn(*overrides), "again")
    assert rows(whole, times=False) == rows(again, times=False)

    for step in (2, 3):
        shutil.rmtree(again.checkpoint(step))
    (again.path / "metrics.jsonl").write_text("".join(line + "\n" for line in _lines(again)[:2]))
    _, done, checkpoint = reopen(again.path)
    assert done == 1
    run(single_turn(*overrides), "again", Resume(done, checkpoint))
    assert rows(again, times=False) == rows(whole, times=False)


@pytest.mark.slow
def test_lag_one_overlaps_and_weighs_tokens(single_turn: Make, run: Run) -> None:
    found = rows(run(single_turn("lag=1", "steps=4", "learner.optimizer.lr=1e-3")))
    assert found[0]["lag"] == 0
    assert max(row["lag"] for row in found) == 1
    assert all(0 < row["offpolicy/ess"] <= 1 for row in found)
    assert any(row["offpolicy/ess"] < 1 for row in found[1:])


@pytest.mark.slow
def test_lr_zero_changes_no_weight(single_turn: Make, run: Run) -> None:
    import torch
    from safetensors.torch import load_file

    folder = run(single_turn("learner.optimizer.lr=0", "steps=1"))
    start = load_file(folder.model / "model.safetensors")
    end = load_file(folder.checkpoint(1) / "model.safetensors")
    assert all(torch.equal(start[name], end[name]) for name in start)


@pytest.mark.slow
def test_d3s_that_keeps_everything_is_the_plain_algorithm(single_turn: Make, run: Run) -> None:
    import torch
    from safetensors.torch import load_file

    ends = []
    for name, select in (("plain", "null"), ("whole", "{name: d3s, samples: 100, tokens: 100}")):
        rule = f"algorithm={{name: grpo, minibatches: 2, select: {select}}}"
        folder = run(single_turn("deterministic=true", "steps=2", rule), name)
        ends.append((rows(folder, times=False), load_file(folder.checkpoint(2) / "model.safetensors")))
    assert ends[0][0] == ends[1][0]
    assert all(torch.equal(weight, ends[1][1][name]) for name, weight in ends[0][1].items())


def _lines(folder: RunFolder) -> list[str]:
    return (folder.path / "metrics.jsonl").read_text().splitlines()
