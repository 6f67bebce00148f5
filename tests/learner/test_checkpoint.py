"""Resuming from a checkpoint gives the steps of the uninterrupted run, bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from rlpost.algorithms.base import Plan
from rlpost.learner.checkpoint import STATE
from rlpost.learner.config import LoraConfig, OptimizerConfig
from rlpost.learner.errors import ModelError
from rlpost.learner.learner import Learner
from rlpost.learner.source import load_tokenizer
from tests.learner.helpers import Clipped, batch, setup, tiny_folder, weights_of

CASES = {
    "plain": {},
    "bf16, sharded": {"dtype": "bf16"},
    "adapters": {"lora": LoraConfig(rank=4)},
    "adapters, bf16": {"lora": LoraConfig(rank=4), "dtype": "bf16"},
    "another optimizer": {
        "optimizer": OptimizerConfig(name="torch.optim:SGD", lr=0.1, schedule="linear", options={"momentum": 0.9})
    },
}


def learner(folder: Path, config: dict[str, object]) -> Learner:
    optimizer = OptimizerConfig(lr=1e-2, schedule="cosine", weight_decay=0.1)
    return Learner(setup(folder, **({"optimizer": optimizer} | config)), algorithm=Clipped(Plan(1, 2)))


def run(one: Learner, steps: range) -> list[dict[str, float]]:
    rows = [one.learn(batch(6, seed=step, step=step)).metrics for step in steps]
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]


@pytest.mark.parametrize("case", CASES)
def test_resume_is_exact(case: str, model_folder: Path, tmp_path: Path) -> None:
    whole = learner(model_folder, CASES[case])
    run(whole, range(2))
    whole.score([[1, 2, 3]])  # a pass without gradient must not change what is saved
    whole.save(tmp_path / "step-2")
    expected = run(whole, range(2, 4)), weights_of(whole)
    whole.close()

    resumed = learner(model_folder, CASES[case])
    assert resumed.load(tmp_path / "step-2") == 2
    actual = run(resumed, range(2, 4)), weights_of(resumed)
    assert actual[0] == expected[0]
    for name, weight in expected[1].items():
        np.testing.assert_array_equal(actual[1][name], weight, err_msg=name)
    shutil.rmtree(tmp_path / "step-2")  # old checkpoints are pruned while the run goes on
    resumed.save(tmp_path / "step-4")
    assert load_tokenizer(tmp_path / "step-4")("hé").input_ids == load_tokenizer(model_folder)("hé").input_ids
    if resumed.policy.has_adapters:  # they still go on top of the first model, not of the checkpoint
        assert torch.load(tmp_path / "step-4" / STATE)["base"] == str(model_folder.resolve())
    resumed.close()


def test_a_checkpoint_is_a_hugging_face_folder_with_the_published_weights(model_folder: Path, tmp_path: Path) -> None:
    one = learner(model_folder, CASES["plain"])
    run(one, range(1))
    one.save(tmp_path / "c")
    published = dict(zip(one.weights(1).names, one.weights(1).payload, strict=True))
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "c", dtype="auto")
    assert saved.dtype is torch.float32
    assert dict(saved.named_parameters()).keys() == published.keys()
    for name, weight in saved.named_parameters():
        np.testing.assert_array_equal(weight.detach().numpy(), published[name])
    assert load_tokenizer(tmp_path / "c")("hé").input_ids == load_tokenizer(model_folder)("hé").input_ids
    one.close()


def test_bad_checkpoints_are_named(model_folder: Path, tmp_path: Path) -> None:
    one = learner(model_folder, {})
    with pytest.raises(ModelError, match="not a complete checkpoint"):
        one.load(model_folder)
    one.save(tmp_path / "plain")
    other = learner(model_folder, CASES["adapters"])
    with pytest.raises(ModelError, match=r"without learner\.lora"):
        other.load(tmp_path / "plain")
    other.close()
    wider = learner(tiny_folder(tmp_path / "wide", hidden=64), {})
    with pytest.raises(ModelError, match="another model"):
        wider.load(tmp_path / "plain")
    wider.close()
    one.close()
