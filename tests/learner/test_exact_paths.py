"""Every model is computed exactly, more slowly where it must be, or refused with the layer or feature named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, MambaConfig, MambaForCausalLM

from rlpost.benchmarks.model_families import own_attention, write_family
from rlpost.learner import probe
from rlpost.learner.config import LearnerConfig, OptimizerConfig
from rlpost.learner.errors import ModelError, ModelRefused
from rlpost.learner.learner import Learner
from rlpost.learner.model import load_model
from rlpost.learner.own_forward import PaddedRows
from rlpost.learner.policy import PolicyModel
from rlpost.learner.sharding import Ranks
from tests.learner.helpers import Clipped, batch, setup

RANKS = Ranks(0, 1, torch.device("cpu"), "", 60.0, sharded=False)
CONFIG = LearnerConfig(device="cpu", dtype="fp32")
PATHS = {
    "Gemma 2 (soft caps)": "eager",
    "GPT-OSS (sinks)": "eager",
    "Phi-3.5-MoE (window, longrope)": "sdpa",
    "BLOOM (ALiBi)": "sdpa",
    "Falcon (ALiBi)": "sdpa",
    "Llama 4, text": "sdpa",
    "Persimmon": "rlpost_packed",
    "Cohere (scaled logits)": "rlpost_packed",
    "Phi-1, Phi-2 (biased head)": "rlpost_packed",
    "GPT-J (biased head)": "rlpost_packed",
    "DeepSeek-V3": "rlpost_packed",
}
"""What each computes its attention with: the first of packed, torch's and plain that gives the model's own numbers."""


@pytest.mark.parametrize("family", PATHS)
def test_the_way_a_family_is_computed_and_its_gradient(family: str, tmp_path: Path) -> None:
    """Two sequences in one pack against the model's own full logits, and the gradient of their log-probs."""
    folder = write_family(family, tmp_path)
    policy = load_model(folder, CONFIG.model_copy(update={"gradient_checkpointing": True}), RANKS, max_context=96)
    assert policy.attention == PATHS[family]
    attention = own_attention(family)
    own = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention)
    if family.startswith("Phi-3.5"):
        return  # its rotary scaling is not transformers' own, see test_rotary.py
    sequences = [torch.arange(3, 73) * 7 % 256, torch.arange(3, 20)]
    expected = []
    for ids in sequences:
        logs = torch.log_softmax(own(ids[None], use_cache=False).logits[0, :-1].float(), -1)
        expected.append(logs.gather(1, ids[1:, None])[:, 0])
    rows = torch.cat([torch.arange(69), 70 + torch.arange(16)])
    ours, _ = policy(
        torch.cat(sequences)[None], policy.layout([70, 17]), rows, torch.cat([ids[1:] for ids in sequences])
    )
    torch.testing.assert_close(ours, torch.cat(expected), rtol=0, atol=2e-5)
    ours.sum().backward()
    torch.cat(expected).sum().backward()
    theirs = dict(own.named_parameters())
    for name, weight in policy.model.named_parameters():
        if theirs[name].grad is not None and (size := float(theirs[name].grad.norm())):
            assert float((weight.grad - theirs[name].grad).norm()) < 1e-4 * max(size, 1.0), name


def test_a_slower_path_learns_what_the_packed_one_does(model_folder: Path) -> None:
    """The same step of the same model, in packs and in padded rows, several sequences with equal prompts in each."""
    moved = []
    for rows in (False, True):
        config = setup(model_folder, max_tokens_per_pack=60, optimizer=OptimizerConfig(name="torch.optim:SGD", lr=0.1))
        learner = Learner(config, algorithm=Clipped())
        if rows:
            logits = learner.policy.logits
            learner.policy = PaddedRows(learner.policy.model, torch.float32, attention="sdpa")
            learner.policy.logits = logits
        learner.learn(batch(8))
        moved.append(np.concatenate([one.ravel().copy() for one in learner.weights(1).payload]))
    np.testing.assert_allclose(moved[1], moved[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", ["OPT (dropout)", "Phi-3.5-MoE (window, longrope)"])
def test_recomputed_layers_are_not_random(family: str, tmp_path: Path) -> None:
    """transformers' own checkpointing needs training mode, in which these drop activations or jitter their router."""
    learner = Learner(setup(write_family(family, tmp_path), gradient_checkpointing=True), algorithm=Clipped())
    sequences = [list(range(3, 90)), [5, 4, 3]]
    first, second = (learner.score(sequences) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    plain = Learner(setup(tmp_path), algorithm=Clipped()).score(sequences)
    for ours, own in zip(first, plain, strict=True):
        np.testing.assert_allclose(ours, own, rtol=0, atol=1e-5)


def check(model: Any, policy: PolicyModel | None = None, max_context: int | None = None) -> None:
    made = policy or PolicyModel(model.eval(), torch.float32)
    probe.check(made, probe.reference(made, max_context))


def test_a_recurrent_model_is_refused_by_its_layer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4)
    MambaForCausalLM(config).save_pretrained(tmp_path / "mamba")
    with pytest.raises(ModelRefused, match=r"layer 'backbone.layers.0.* \(MambaBlock\) carries a recurrent state"):
        load_model(tmp_path / "mamba", CONFIG, RANKS)
    with pytest.raises(ModelRefused, match=r"layer 'model.layers.0.linear_attn' \(Qwen3NextGatedDeltaNet\)"):
        load_model(write_family("Qwen3-Next (hybrid)", tmp_path / "hybrid"), CONFIG, RANKS)


class Scaled(nn.Module):
    """An output head that multiplies its logits, as some architectures do behind their head."""

    def __init__(self, head: nn.Linear, power: int) -> None:
        super().__init__()
        self.head, self.power = head, power
        self.weight = head.weight

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.head(hidden) * 0.5
        return logits**self.power


def headed(folder: Path, power: int) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.lm_head = Scaled(model.lm_head, power)
    return model


def test_an_unknown_scale_is_read_off_the_logits(model_folder: Path) -> None:
    policy = PolicyModel(headed(model_folder, 1).eval(), torch.float32)
    check(policy.model, policy)
    assert policy.logits.scale == pytest.approx(0.5, abs=1e-6)


def test_logits_that_are_no_scale_of_the_heads_product_are_refused(model_folder: Path) -> None:
    with pytest.raises(ModelRefused, match=r"own logits differ by .* though all layers agree: .*output head"):
        check(headed(model_folder, 3))


def test_a_layer_that_computes_something_else_is_named(model_folder: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    attention = model.model.layers[1].self_attn
    attention.scaling, plain = attention.scaling, attention.forward

    def other(*args: Any, **options: Any) -> Any:
        out, weights = plain(*args, **options)
        return out * (1.0 if model.config._attn_implementation == "eager" else 1.01), weights

    attention.forward = other
    with pytest.raises(ModelRefused, match=r"beginning with what layer 'model.layers.1' computes"):
        check(model)


def test_a_state_that_leaks_between_sequences_is_refused(model_folder: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    layer = model.model.layers[0].mlp
    plain = layer.forward
    layer.forward = lambda hidden: plain(hidden) + hidden.cumsum(1) * 0.1  # a running sum over the row
    with pytest.raises(ModelRefused, match=r"computed together and each alone .*carries state"):
        check(model)


def test_something_random_in_the_forward_pass_is_refused(model_folder: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    policy = PolicyModel(model.eval(), torch.float32)
    own = probe.reference(policy)
    layer = model.model.layers[0].mlp
    plain = layer.forward
    layer.forward = lambda hidden: plain(hidden) + torch.randn_like(hidden) * 1e-5
    with pytest.raises(ModelRefused, match="two scorings with the same weights differ"):
        probe.confirm(policy, own)


def test_a_model_that_is_another_one_in_its_dtype_is_refused(model_folder: Path) -> None:
    policy = load_model(model_folder, CONFIG, RANKS)
    own = probe.reference(policy)
    with torch.no_grad():
        policy.model.model.layers[0].mlp.down_proj.weight.mul_(1.5)
    with pytest.raises(ModelRefused, match="as it is to be trained, in float32, its log-probs differ"):
        probe.confirm(policy, own)


def test_the_probe_reaches_past_windows_and_to_the_runs_context(tmp_path: Path) -> None:
    window = AutoModelForCausalLM.from_pretrained(write_family("Mistral (window)", tmp_path))
    assert probe.probe_lengths(window, None) == [1, 48, 64]
    assert probe.probe_lengths(window, 300) == [1, 48, 64, 300]
    assert probe.probe_lengths(window, 30) == [1, 30]
    assert probe.probe_lengths(window, 10_000)[-1] == 512  # the configuration has no more positions


def test_layers_that_a_model_does_not_name_cannot_be_recomputed(model_folder: Path) -> None:
    policy = load_model(model_folder, CONFIG, RANKS)
    policy.model._no_split_modules = None
    with pytest.raises(ModelError, match="does not name its layers"):
        policy.checkpoint_layers()
