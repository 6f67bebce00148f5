"""Rotary scaling that transformers decides at every call is fixed once, as an engine fixes it when it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PhimoeConfig, PhimoeForCausalLM

from rlpost.benchmarks.model_families import family_config
from rlpost.learner.config import LearnerConfig
from rlpost.learner.errors import ModelRefused
from rlpost.learner.model import load_model
from rlpost.learner.rotary import freeze_rotary
from rlpost.learner.sharding import Ranks

RANKS = Ranks(0, 1, torch.device("cpu"), "", 60.0, sharded=False)
ORIGINAL = 64  # original_max_position_embeddings of the family
SMALL = {"vocab_size": 64, "hidden_size": 64, "num_hidden_layers": 1, "intermediate_size": 48,
         "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 512}  # fmt: skip


def rotary(model: Any) -> Any:
    return next(module for module in model.modules() if hasattr(module, "rope_type"))


@pytest.mark.parametrize("max_context", [60, 200])
def test_longrope_beside_a_longer_sequence_is_what_it_is_alone(max_context: int, tmp_path: Path) -> None:
    """Packed with one of 180 tokens, a sequence of 20 was off by nats: the longest position of a call decided."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(family_config("Phi-3, longrope")).save_pretrained(tmp_path)
    policy = load_model(tmp_path, LearnerConfig(device="cpu", dtype="fp32"), RANKS, max_context=max_context)
    short, long = torch.arange(3, 23), torch.arange(180) % 250
    packed = policy(torch.cat([short, long])[None], policy.layout([20, 180]), torch.arange(19), short[1:])[0]
    alone = policy(short[None], policy.layout([20]), torch.arange(19), short[1:])[0]
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("max_context", "which"), [(ORIGINAL, "short_factor"), (ORIGINAL + 1, "long_factor")])
def test_the_engines_context_chooses_the_factors(max_context: int, which: str) -> None:
    config = family_config("Phi-3, longrope")
    model = AutoModelForCausalLM.from_config(config)
    freeze_rotary(model, max_context)
    factors = torch.tensor(config.rope_parameters[which])
    expected = 1.0 / (factors * 1e4 ** (torch.arange(0, 32, 2) / 32))
    cos = torch.cos(torch.arange(100.0)[:, None] * expected) * (1 + torch.log(torch.tensor(8.0)) / 4.158883) ** 0.5
    for last in (10, 100):  # positions below and beyond the original context
        ours = rotary(model)(torch.zeros(1), torch.arange(last)[None])[0][0, :, :16]
        torch.testing.assert_close(ours, cos[:last], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("max_context", "which"), [(32, "short"), (128, "long")])
def test_factors_and_scale_of_a_model_that_asks_at_every_call(max_context: int, which: str) -> None:
    """PhiMoE's own rotary module always takes short factors, and its scale by the call."""
    factors = {"short_factor": [1.0] * 16, "long_factor": [2.0] * 16, "short_mscale": 1.1, "long_mscale": 1.3}
    scaling = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": ORIGINAL, **factors}
    model = PhimoeForCausalLM(PhimoeConfig(**SMALL, rope_parameters=scaling, num_local_experts=2))
    freeze_rotary(model, max_context)
    inv_freq = 1.0 / (factors[f"{which}_factor"][0] * 1e4 ** (torch.arange(0, 32, 2) / 32))
    for last in (10, 100):
        cos = rotary(model)(torch.zeros(1), torch.arange(last)[None])[0][0, -1, :16]
        torch.testing.assert_close(cos, torch.cos((last - 1) * inv_freq) * factors[f"{which}_mscale"])


def dynamic(**more: Any) -> LlamaForCausalLM:
    scaling = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0, **more}
    return LlamaForCausalLM(LlamaConfig(**SMALL, rope_parameters=scaling))


def test_dynamic_scaling_stays_what_it_is_at_the_configurations_positions() -> None:
    model = dynamic()
    freeze_rotary(model, 512)
    module = rotary(model)
    before = module.inv_freq.clone()
    module(torch.zeros(1), torch.arange(700)[None])
    assert torch.equal(module.inv_freq, before)
    torch.testing.assert_close(before, 1.0 / 1e4 ** (torch.arange(0, 32, 2) / 32))


@pytest.mark.parametrize(
    ("make", "max_context", "words"),
    [
        (dynamic, 513, r"set rollout.max_context \(513\)"),
        (lambda: dynamic(max_trained_positions=100), 100, "max_trained_positions"),
        (lambda: longrope_with(attention_factor=2.0), 100, "remove attention_factor"),
    ],
)
def test_what_an_engine_would_compute_otherwise_is_refused(make: Any, max_context: int, words: str) -> None:
    with pytest.raises(ModelRefused, match=words):
        freeze_rotary(make(), max_context)


def longrope_with(**more: Any) -> Any:
    config = family_config("Phi-3, longrope")
    config.rope_parameters |= more
    return AutoModelForCausalLM.from_config(config)
