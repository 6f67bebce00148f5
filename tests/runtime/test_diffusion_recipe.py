"""Masked-diffusion models through recipes: what cannot go together is refused before anything starts, and a run goes
the whole way with real actors.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rlpost.faults import RunError
from rlpost.learner.config import BuildConfig, LearnerConfig, ModelConfig
from rlpost.learner.model import load_model
from rlpost.learner.sharding import Ranks
from rlpost.learner.source import materialise
from rlpost.recipe import LoadedRecipe, Recipe, RecipeError
from rlpost.reward.plugins import Plugin
from rlpost.rollout.config import RolloutConfig
from rlpost.rollout.diffusion.config import DiffusionConfig
from rlpost.rollout.diffusion.decode import Row, decode
from rlpost.rollout.diffusion.model import BlockModel
from rlpost.runfolder import RunFolder
from rlpost.step_metrics import unsolved_reward
from rlpost.warm_start import WarmStartConfig, WarmStartJob, warm_start

from .conftest import rows

TINY: dict[str, Any] = {
    "seed": 5,
    "steps": 2,
    "model": {"build": {"hidden": 32, "layers": 2, "heads": 4, "intermediate": 48}},
    "env": {
        "name": "rlpost.envs.sudoku:Sudoku",
        "options": {"empty": 4, "bare": True, "train_size": 64, "eval_size": 16},
    },
    "batch": {"tasks": 4, "group_size": 4},
    "rollout": {"max_turns": 1, "max_new_tokens": 20, "max_context": 64, "chat": "plain"},
    "engine": {"slots": 64, "block": 4, "steps": 2},
    "algorithm": {"name": "bgpo", "n_t": 4},
    "learner": {"device": "cpu", "dtype": "fp32", "threads": 1, "optimizer": {"lr": 1e-3}},
    "eval": {"episodes": 0},
    "cluster": {"deadline_s": 120},
}


EVEN = """
from rlpost.envs.base import Score, Task
from rlpost.envs.one_answer import OneAnswer


class Even(OneAnswer):
    @classmethod
    def tasks(cls, split, seed):
        return [Task(f"{split}-{n}", {"n": n, "split": split}) for n in range(8)]

    def start(self):
        return [{"role": "user", "content": str(self.task.data["n"])}]

    def score(self):
        return Score(sum(ord(letter) % 2 for letter in self.answer) / 20)
"""
"""A world in which even a random model's answers are worth different rewards."""


def load(folder: Path, *overrides: str) -> LoadedRecipe:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return Recipe.load(path, list(overrides))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("algorithm={name: grpo}", "key engine: (block, steps|steps, block): for masked-diffusion models"),
        ("rollout.max_new_tokens=18", r"key rollout.max_new_tokens: 18 is not a multiple of .*block \(4\)"),
        ("rollout.max_turns=2", "key rollout.max_turns: a masked-diffusion policy answers once"),
        ("engine.steps=5", r"steps \(5\) of a block cannot be more than its tokens \(4\)"),
        ("engine.blok=4", "unknown key; did you mean 'block'"),
        ("engine.tensor_parallel=2", "sleep and tensor_parallel are vLLM's"),
        ("sync.transport=nccl", "key sync.transport: nccl: only vLLM takes weights so"),
        ("algorithm.n_t=0", "algorithm.n_t: Input should be greater than or equal to 1"),
    ],
)
def test_what_cannot_go_together_is_refused(override: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=words):
        load(tmp_path, override)


@pytest.mark.parametrize(
    ("name", "allowed"), [("bgpo", True), ("vrpo_ol", True), ("vrpo_two_pass", False), ("diffu_grpo", False)]
)
def test_older_rollouts_are_for_bgpo_and_vrpo_ol(name: str, allowed: bool, tmp_path: Path) -> None:
    overrides = (f"algorithm={{name: {name}}}", "lag=1")
    if allowed:
        assert load(tmp_path, *overrides).recipe.lag == 1
    else:
        with pytest.raises(RecipeError, match="key lag: this algorithm takes no rollouts of older weights"):
            load(tmp_path, *overrides)


def test_a_causal_folder_in_a_diffusion_recipe_starts_nothing(tmp_path: Path, run: Callable[..., RunFolder]) -> None:
    causal = materialise(ModelConfig(build=BuildConfig(hidden=32, heads=4, intermediate=48)), tmp_path / "causal")
    loaded = load(tmp_path, f"model={{path: {causal}}}")
    with pytest.raises(RunError, match=r"is a causal language model .* or a warm_start"):
        run(loaded)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [("lag=1",), ("algorithm.minibatches=2", "engine.cache=dual")])
def test_a_run_with_real_actors(overrides: tuple[str, ...], tmp_path: Path, run: Callable[..., RunFolder]) -> None:
    (tmp_path / "even.py").write_text(EVEN)
    folder = run(load(tmp_path, *overrides, "env={name: even.py:Even}"))
    found = rows(folder)
    assert len(found) == 2
    for row in found:
        assert row["gap/logprob_abs"] < 1e-4  # verified at every publication
        assert row["elbo"] < 0
        assert row["capped"] == 0
        assert row["offpolicy/kl"] is None
        assert row["reward/mean"] > 0
    assert (folder.path / "checkpoints").is_dir()


@pytest.mark.slow
def test_a_deterministic_run_repeats_bit_for_bit(tmp_path: Path, run: Callable[..., RunFolder]) -> None:
    (tmp_path / "even.py").write_text(EVEN)
    overrides = ("deterministic=true", "env={name: even.py:Even}")
    first, second = (run(load(tmp_path, *overrides), name) for name in ("one", "two"))
    assert rows(first)[0]["updates"] == 1
    assert rows(first, times=False) == rows(second, times=False)


def test_the_warm_start_learns_what_was_shown_and_that_it_ends(tmp_path: Path) -> None:
    """In a process of its own, as in a run: a model that is shown one answer writes it, and end tokens after it."""
    build = BuildConfig(hidden=32, layers=2, heads=4, intermediate=48, initializer_range=0.1)
    folder = materialise(ModelConfig(build=build), tmp_path / "model", 0, "diffusion")
    data = tmp_path / "shown.jsonl"
    data.write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "xyz"}]}\n' * 40)
    decoding = DiffusionConfig(block=4, steps=2)
    job = WarmStartJob(
        config=WarmStartConfig(data=str(data), steps=150, batch_size=16, lr=5e-3, stop_accuracy=0.9),
        model=str(folder),
        output=str(tmp_path / "warm"),
        data=str(data),
        env=Plugin("rlpost.envs.sudoku:Sudoku"),
        env_options={},
        rollout=RolloutConfig(max_new_tokens=8, max_context=32, chat="plain"),
        trust_remote_code=False,
        seed=0,
        diffusion=decoding,
    )
    said: list[str] = []
    place = warm_start(job, lambda _: None, said.append)
    assert "accuracy" in said[0]
    keep = decoding.model_copy(update={"after_eos": "keep"})
    text = [ord(letter) for letter in "xyz"]
    ids = decode(BlockModel.load(str(place), torch.float32, "cpu"), [Row(_prompt(place), 0.0, 0)], 8, keep, [257])[0]
    assert ids.token_ids.tolist()[3:] == [257] * 5
    assert len(set(ids.token_ids.tolist()[:3])) == len(text)


def _prompt(folder: Path) -> list[int]:
    from rlpost.rollout.chat import load_format

    return load_format(str(folder), "plain", 64, "\n", False).opening([{"role": "user", "content": "a"}])


def test_a_reward_that_is_all_form_is_warned_of() -> None:
    row = {"reward/mean": 0.1, "reward/exact": 0.0, "episodes": 64}
    assert "none of 64 episodes was exact" in unsolved_reward(row)
    assert not unsolved_reward(row | {"reward/exact": 0.02})
    assert not unsolved_reward(row | {"reward/mean": 0.0})
    assert not unsolved_reward({"reward/mean": 0.1, "episodes": 64})


def test_masked_loading_is_exact_in_bf16_free_fp32(tmp_path: Path) -> None:
    """The check at load compares tiled with own logits for a bidirectional model too."""
    folder = materialise(ModelConfig(build=BuildConfig(hidden=32, heads=4)), tmp_path / "m", 0, "diffusion")
    ranks = Ranks(0, 1, torch.device("cpu"), "", 60.0, sharded=False)
    assert not load_model(folder, LearnerConfig(device="cpu"), ranks).reading.causal
