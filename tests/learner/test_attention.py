"""Packed sequences give the numbers of separate ones, in every architecture and under checkpointing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from rlpost.learner.attention import NAME, PackedLayout, packed_attention
from rlpost.learner.errors import ModelRefused

LENGTHS = [13, 12, 12, 7, 7, 1]
SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
}
MODELS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16}),
    "llama": (LlamaConfig, LlamaForCausalLM, {"num_key_value_heads": 4}),
    "mistral, sliding window": (MistralConfig, MistralForCausalLM, {"sliding_window": 4}),
}


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_packed_equals_separate(name: str, checkpointing: bool) -> None:
    config, model_class, extra = MODELS[name]
    torch.manual_seed(0)
    model = model_class(config(**SIZES | extra)).double()
    generator = torch.Generator().manual_seed(1)
    sequences = [torch.randint(50, (1, length), generator=generator) for length in LENGTHS]
    model.set_attn_implementation("sdpa")  # eager rounds its softmax to fp32
    separate = torch.cat([model(ids, use_cache=False).logits for ids in sequences], dim=1)
    expected = gradients(model, separate.square().sum())

    model.set_attn_implementation(NAME)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    layout = PackedLayout.of(LENGTHS, "cpu")
    packed = model(
        torch.cat(sequences, dim=1), position_ids=layout.position_ids, packed_layout=layout, use_cache=False
    ).logits
    torch.testing.assert_close(packed, separate, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients(model, packed.square().sum()), expected, rtol=1e-9, atol=1e-11)


def test_the_model_builds_no_mask() -> None:
    seen: list[object] = []

    def spy(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any) -> Any:
        seen.append(mask)
        return packed_attention(module, query, key, value, mask, **kwargs)

    model = Qwen2ForCausalLM(Qwen2Config(**SIZES))
    from transformers import AttentionInterface

    registered = AttentionInterface()[NAME]
    AttentionInterface.register(NAME, spy)
    try:
        model.set_attn_implementation(NAME)
        layout = PackedLayout.of([3, 2], "cpu")
        model(torch.ones(1, 5, dtype=torch.int64), position_ids=layout.position_ids, packed_layout=layout)
    finally:
        AttentionInterface.register(NAME, registered)
    assert seen == [None, None]


def test_layout_by_hand() -> None:
    layout = PackedLayout.of([10, 9, 4], "cpu")
    assert layout.position_ids.tolist() == [[*range(10), *range(9), *range(4)]]
    assert layout.cu_seqlens.tolist() == [0, 10, 19, 23]
    assert layout.longest == 10
    first, second = layout.groups  # 9 is close to 10, 4 is not
    assert (first.rows, first.width, first.first) == (2, 10, 0)
    assert (second.rows, second.width, second.first, second.gather) == (1, 4, 19, None)


def test_long_sequences_of_equal_length_leave_the_variable_length_kernel() -> None:
    assert [group.rows for group in PackedLayout.of([9000, 9000], "cpu", padded=False).groups] == [2]
    assert PackedLayout.of([9000, 8999], "cpu", padded=False).groups == ()
    assert PackedLayout.of([100, 100], "cpu", padded=False).groups == ()


def test_without_a_layout_or_with_a_cap_it_refuses() -> None:
    states = torch.zeros(1, 2, 3, 4)
    with pytest.raises(ModelRefused, match="keyword arguments"):
        packed_attention(nn.Identity(), states, states, states, None)
    with pytest.raises(ModelRefused, match="softcap"):
        packed_attention(
            nn.Identity(), states, states, states, None, packed_layout=PackedLayout.of([3], "cpu"), softcap=30.0
        )
