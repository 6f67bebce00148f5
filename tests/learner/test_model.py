"""Loading the policy: what it computes, and which models are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
)

from rlpost.learner import model as model_module
from rlpost.learner import probe
from rlpost.learner.config import LearnerConfig
from rlpost.learner.errors import ModelError, ModelRefused
from rlpost.learner.model import load_model
from rlpost.learner.policy import PolicyModel
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


SMALL = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2}


class Scaled(nn.Module):
    """An output head that multiplies its logits, as some architectures do behind their head."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.head = head
        self.weight = head.weight

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(hidden) * 0.5
        return logits


def scaled(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.lm_head = Scaled(model.lm_head)  # type: ignore[assignment]
    return model


REFUSED = {
    "a bias on the head": (lambda _: PhiForCausalLM(PhiConfig(**SMALL, **HEADS)), "bias"),
    "capped logits": (
        lambda _: Gemma2ForCausalLM(Gemma2Config(**SMALL, **HEADS, head_dim=16)),
        "caps its logits at 30",
    ),
    "capped attention": (
        lambda _: Gemma2ForCausalLM(Gemma2Config(**SMALL, **HEADS, head_dim=16, final_logit_softcapping=None)),
        "softcap",
    ),
    "a recurrent model": (
        lambda _: MambaForCausalLM(MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4)),
        "packed",
    ),
    "scaled logits": (scaled, "own logits differ by .* nats .*scaled"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_would_be_scored_wrongly_is_refused(case: str, model_folder: Path) -> None:
    make, reason = REFUSED[case]
    torch.manual_seed(0)
    with pytest.raises(ModelRefused, match=reason):
        probe.check(PolicyModel(make(model_folder).eval(), torch.float32))


def test_a_state_that_leaks_between_sequences_is_refused(model_folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    layer = model.model.layers[0].mlp
    plain = layer.forward
    layer.forward = lambda hidden: plain(hidden) + hidden.cumsum(1) * 0.1  # a running sum over the row
    with pytest.raises(ModelRefused, match=r"two packed sequences .*carries state"):
        probe.check(PolicyModel(model, torch.float32))
