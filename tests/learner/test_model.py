"""Loading the policy: what it computes (which models are refused: test_exact_paths.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from rlpost.learner import model as model_module
from rlpost.learner.config import LearnerConfig
from rlpost.learner.errors import ModelError
from rlpost.learner.model import load_model
from rlpost.learner.sharding import Ranks
from tests.learner.helpers import tiny_folder


def ranks() -> Ranks:
    return Ranks(0, 1, torch.device("cpu"), "", 60.0, sharded=False)


def test_the_policy_scores_like_the_model_itself(model_folder: Path) -> None:
    policy = load_model(model_folder, LearnerConfig(device="cpu", dtype="fp32"), ranks())
    own = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    ids = torch.randint(259, (30,), generator=torch.Generator().manual_seed(0))
    logs = torch.log_softmax(own(ids[None]).logits[0, :-1] / 0.7, -1)
    rows = torch.tensor([3, 7, 28])
    logprobs, entropies = policy(ids[None, :-1], policy.layout([29]), rows, ids[rows + 1], temperature=0.7)
    torch.testing.assert_close(logprobs, logs[rows, ids[rows + 1]], rtol=0, atol=2e-5)
    torch.testing.assert_close(entropies, -(logs.exp() * logs).sum(-1)[rows], rtol=0, atol=2e-5)


@pytest.mark.parametrize("changes", [{}, {"tied": False}, {"family": "llama"}])
def test_weights_have_the_names_of_the_hugging_face_model(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = tiny_folder(tmp_path / "m", **changes)
    policy = load_model(folder, LearnerConfig(device="cpu", dtype="fp32"), ranks())
    own = dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).named_parameters())
    weights = dict(policy.full_weights(torch.float32))
    assert list(weights) == list(own)
    assert ("lm_head.weight" in weights) is (changes.get("tied") is False)
    assert all(torch.equal(weights[name], own[name]) for name in own)


def test_dropout_is_off_also_in_training_mode(tmp_path: Path) -> None:
    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=64, n_positions=80))
    model.save_pretrained(tmp_path)
    policy = load_model(tmp_path, LearnerConfig(device="cpu", dtype="fp32"), ranks()).train()
    ids, rows = torch.arange(20)[None], torch.arange(20)
    first, second = (policy(ids, policy.layout([20]), rows, rows)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_a_missing_or_unreadable_model_is_named(model_folder: Path, tmp_path: Path) -> None:
    config = LearnerConfig(device="cpu", dtype="fp32")
    with pytest.raises(ModelError, match="no folder"):
        load_model(tmp_path / "nowhere", config, ranks())
    (tmp_path / "config.json").write_text((model_folder / "config.json").read_text())
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(tmp_path, config, ranks())


def test_without_a_working_kernel_attention_falls_back_to_padded_rows(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_module, "available", lambda device, dtype: True)  # a CPU, where the kernel must fail
    policy = load_model(model_folder, LearnerConfig(device="cpu", dtype="fp32"), ranks())
    assert policy.padded
    ids, rows = torch.arange(6)[None], torch.arange(6)
    assert policy(ids, policy.layout([4, 2]), rows, rows)[0].isfinite().all()
