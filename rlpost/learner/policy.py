"""The policy: a Hugging Face LM whose forward pass gives log-probabilities and entropies instead of logits.

The output head is applied inside the same forward pass, tile by tile and only at the rows asked for, so that FSDP2
gathers it like any other weight. Left out: caches and generation (the engines'), and losses (the algorithms').
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.distributed.fsdp import FSDPModule
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from rlpost.learner import lora
from rlpost.learner.attention import NAME, PackedLayout
from rlpost.learner.errors import ModelError, ModelRefused
from rlpost.learner.logprobs import PLAIN, Logits, tile_rows, tiled_logprobs
from rlpost.learner.reading import Reading
from rlpost.learner.sharding import whole
from rlpost.rollout.hf_names import checkpoint_weights, model_weights


class PolicyModel(nn.Module):
    """The one copy of the weights.

    Args:
        model: a causal or masked-diffusion LM from transformers; it is not copied.
        compute: dtype of activations.
        tile: rows of logits alive at once; absent: what TILE_BYTES allow.

    Attributes:
        reading: how the model reads a sequence.
        padded: attention runs in padded rows, which any device and dtype can; false: in the variable-length kernel.
        offload: what the backward pass needs of the layers waits in CPU memory; meant for gradient checkpointing, where
            that is one input a layer.
        alone: there is one rank.
        logits: what the model does to its head's product.
    """

    packs = True
    """Whether sequences share a row; their layout then reaches the attention function."""
    attention = NAME
    """transformers' name of the attention that the model computes with."""

    def __init__(self, model: PreTrainedModel, compute: torch.dtype, tile: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.compute = compute
        self.tile = tile
        self.padded = True
        self.offload = False
        self.alone = True
        self._more = False
        self.logits: Logits = PLAIN
        self.reading = Reading.of(model.config)
        self.use_attention()

    def use_attention(self) -> None:
        """Let the model compute with the attention it is trained with, after something else had its own set."""
        self.model.set_attn_implementation(self.attention)

    def train(self, mode: bool = True) -> Self:
        """Nothing: a policy has no training mode. Dropout and a router's jitter would make its log-probs random."""
        return self

    def forward(
        self, input_ids: Tensor, layout: PackedLayout, rows: Tensor, targets: Tensor, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Score tokens of a packed row.

        Args:
            input_ids: (1, n) int64, whole sequences end to end, shared rows once.
            layout: where each sequence lies, see ``layout``.
            rows: (R,) int64, the positions whose prediction is scored.
            targets: (R,) int64, the tokens they should predict.
            temperature: of the distribution that is scored.

        Returns:
            ``(logprobs, entropies)``, both (R,), fp32 (fp64 for an fp64 model), with gradient.
        """
        hidden = self.hidden(input_ids, layout, rows)
        head = self.model.get_output_embeddings()
        return tiled_logprobs(
            hidden,
            head.weight,
            targets,
            temperature,
            self.tile or tile_rows(head.weight.shape[0]),
            self.reading.mask_token_id,
            getattr(head, "bias", None),
            self.logits,
        )

    def hidden(self, input_ids: Tensor, layout: PackedLayout, rows: Tensor) -> Tensor:
        """(R, d) what the output head is applied to, at ``rows``."""
        states = self._body(input_ids, position_ids=layout.position_ids, packed_layout=layout)
        return states[0].index_select(0, rows)

    def _body(self, input_ids: Tensor, **more: Any) -> Tensor:
        """(B, L, d) what the model below its head makes of (B, L) tokens."""
        with save_on_cpu(pin_memory=input_ids.is_cuda) if self.offload else nullcontext():
            states: Tensor = body_of(self.model)(input_ids=input_ids, use_cache=False, **more)[0]
        return states

    def checkpoint_layers(self) -> None:
        """Keep one input a layer and compute the rest again in the backward pass. Not through transformers, whose own
        gradient checkpointing works in training mode only, with dropout and jitter.

        Raises:
            ModelError: the model does not say which its layers are.
        """
        layers = self.layers()
        if not layers:
            raise ModelError(
                f"learner.gradient_checkpointing: {type(self.model).__name__} does not name its layers "
                "(_no_split_modules), so nothing would be recomputed; set it to false"
            )
        for layer in layers:
            setattr(layer, "forward", partial(_recomputed, layer.forward))  # noqa: B010  (mypy: not a method)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def layout(self, lengths: list[int], rows: NDArray[np.int64] | None = None) -> PackedLayout:
        """The layout of sequences of these lengths, for this model's device and attention kernel."""
        return PackedLayout.of(lengths, self.device, self.padded, self.reading.causal, rows)

    def layers(self) -> list[nn.Module]:
        """The decoder layers, first to last; each is gathered and freed on its own where the model is sharded."""
        names = set(getattr(self.model, "_no_split_modules", None) or ())
        return [module for module in self.model.modules() if _plain_name(module) in names]

    @property
    def has_adapters(self) -> bool:
        """Whether only adapters are trained."""
        return bool(lora.adapters(self.model))

    def reference(self) -> AbstractContextManager[None]:
        """Compute with the frozen base, adapters aside, within this context."""
        return lora.without_adapters(self.model)

    def settle(self) -> None:
        """Free what the last forward pass gathered.

        FSDP2 leaves the root's weights gathered until a backward pass (on a single rank every layer's), and
        ``parameters()`` then gives those copies, in the compute dtype, instead of the masters that the optimizer knows.
        So this is called after every pass without gradient, and before weights are read by name.
        """
        for module in self.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def more_follow(self, more: bool) -> None:
        """Say before a backward pass whether another one of the same update follows.

        On a single rank the weights then stay gathered, and gradients add up in fp32, until the last pass: both would
        else be copied once a pass. Several ranks shard after every pass, to hold less.
        """
        if self.alone and isinstance(self, FSDPModule) and more != self._more:
            self.set_reshard_after_backward(not more)
            self.set_requires_gradient_sync(not more)
            self._more = more

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """Names and parameters that the optimizer sees."""
        self.settle()
        return [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]

    def full_weights(self, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """Every weight as a checkpoint of this model has it, for engines: see ``module_weights``; where transformers
        holds weights in another form than a checkpoint (all experts of a layer in one tensor), they are given the
        checkpoint's, a layer at a time."""
        return checkpoint_weights(self.model, self.module_weights(dtype))

    def module_weights(self, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """Every weight and buffer of the plain model, one at a time: gathered, adapters merged, cast to ``dtype``.

        Names are those of the model in memory; tied weights come once; buffers (a router's bias) keep their dtype. A
        collective where the model is sharded: every rank must run through it. A tensor may share memory with the live
        weights.
        """
        self.settle()
        merged = {f"{name}.weight": layer for name, layer in lora.adapters(self.model)}
        for name, weight in self.plain_weights():
            if name in merged:
                yield name, lora.merged(merged[name]).to(dtype)
            else:
                yield name, whole(weight, dtype if isinstance(weight, nn.Parameter) else None)

    def adapter_weights(self, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """Factors A (rank, in) and B (out, rank) of every adapter in use, one at a time, gathered and cast to ``dtype``
        as the last thing; the scale alpha / rank is in B. Names are those of a PEFT checkpoint. A collective."""
        self.settle()
        for name, layer in lora.adapters(self.model):
            a, b = lora.factors(layer)
            yield f"base_model.model.{name}.lora_A.weight", a.to(dtype)
            yield f"base_model.model.{name}.lora_B.weight", b.to(dtype)

    def plain_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Names and live weights of the plain model, in the order of ``module_weights``."""
        for name, weight in model_weights(self.model):
            if ".lora_" not in name:
                yield name.replace(".base_layer.", "."), weight

    def announced(self, dtype: torch.dtype) -> list[tuple[str, torch.dtype, tuple[int, ...]]]:
        """Names, dtypes and shapes of ``full_weights``; nothing is gathered."""
        plain = (
            (name, torch.empty(weight.shape, dtype=_sent(weight, dtype), device="meta"))
            for name, weight in self.plain_weights()
        )
        return [(name, one.dtype, tuple(one.shape)) for name, one in checkpoint_weights(self.model, plain)]

    def announced_adapters(self, dtype: torch.dtype) -> list[tuple[str, torch.dtype, tuple[int, ...]]]:
        """Names, dtypes and shapes of ``adapter_weights``; nothing is gathered."""
        return [
            (f"base_model.model.{name}.{kind}.weight", dtype, lora.shape(layer, kind))
            for name, layer in lora.adapters(self.model)
            for kind in ("lora_A", "lora_B")
        ]


def body_of(model: PreTrainedModel) -> nn.Module:
    """What is below the output head. ``base_model`` is the model itself where its class names that part by another
    name than it has (Llama 4).

    Raises:
        ModelRefused: no part, or none alone, is a model.
    """
    if model.base_model is not model:
        return model.base_model
    parts = [part for part in model.children() if isinstance(part, PreTrainedModel)]
    if len(parts) != 1:
        raise ModelRefused(f"{type(model).__name__} does not say which part of it is below the output head")
    return parts[0]


def _sent(weight: Tensor, dtype: torch.dtype) -> torch.dtype:
    return dtype if isinstance(weight, nn.Parameter) else weight.dtype


def _recomputed(layer: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """The layer's outputs, its inner activations not kept."""
    if not torch.is_grad_enabled():
        return layer(*args, **options)
    return checkpoint(partial(layer, **options), *args, use_reentrant=False)


def _plain_name(module: nn.Module) -> str:
    """The class's name; FSDP2 makes a subclass with a prefix of its own."""
    return type(module).__name__.removeprefix("FSDP")
