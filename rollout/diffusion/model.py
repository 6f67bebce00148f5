"""A masked-diffusion model's forward pass over a batch of rows, with or without a cache of keys and values.

Rows are padded on the left, so that their blocks stand in the same columns. A cache is only exact in the pass that
fills it: attention is bidirectional, so what is kept is of a slightly older state (Fast-dLLM). Models that bring their
own code run through it, without cache and without padding. Left out: what is sampled (decode.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from rlpost.rollout.engine import EngineError
from rlpost.rollout.hf_model import REMOTE_CODE, auto_class, masked_diffusion_facts

ADAPTER = "default"
NAME = "rlpost_blocks"
"""Name of the attention implementation in transformers."""
Cache = Literal["none", "prefix", "dual"]


def adapted_name(name: str) -> str:
    """The parameter of a model with adapters that a name in a PEFT checkpoint means."""
    return name.removeprefix("base_model.model.").removesuffix(".weight") + f".{ADAPTER}.weight"


class KeyValues:
    """Keys and values of the columns that are not computed anew, layer by layer.

    Attributes:
        mode: ``pass``: nothing is kept; ``record``: keep the first ``columns``; ``before``: what is computed stands
            behind what is kept; ``within``: it overwrites what is kept, from column ``start`` on.
        seen: (B, 1, 1, L) bool, columns that are not padding, or None where none is.
    """

    def __init__(self) -> None:
        self.mode: Literal["pass", "record", "before", "within"] = "pass"
        self.columns = self.start = 0
        self.seen: Tensor | None = None
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def join(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, n, D) as computed -> what the queries see."""
        if self.mode == "record":
            self._kept[layer] = (key[:, :, : self.columns], value[:, :, : self.columns])
        elif self.mode == "before":
            old_key, old_value = self._kept[layer]
            return torch.cat([old_key, key], dim=2), torch.cat([old_value, value], dim=2)
        elif self.mode == "within":
            old_key, old_value = self._kept[layer]
            old_key[:, :, self.start : self.start + key.shape[2]] = key
            old_value[:, :, self.start : self.start + key.shape[2]] = value
            return old_key, old_value
        return key, value


def block_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    key_values: KeyValues | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Bidirectional attention in transformers' calling convention; ``key_values`` comes from ``BlockModel``."""
    assert key_values is not None, "the model does not hand keyword arguments on to its attention function"
    layer: Any = module.layer_idx
    key, value = key_values.join(layer, key, value)
    shared = query.shape[1] != key.shape[1]
    output = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=key_values.seen, scale=scaling, enable_gqa=shared
    )
    return output.transpose(1, 2), None


AttentionInterface.register(NAME, block_attention)


class BlockModel:
    """A masked-diffusion model that decodes.

    Args:
        model: from transformers; not copied. Its attention is ours from now on.
        cache: what is kept between the steps of a block.

    Attributes:
        mask_token_id: the mask token; shift: rows between a token and its prediction.
        own_code: it came with its own code.
        passes: forward passes so far.

    Raises:
        EngineError: it is no masked-diffusion model, or its own code is to use a cache.
    """

    def __init__(self, model: Any, cache: Cache = "none") -> None:
        facts = masked_diffusion_facts(model.config)
        if facts is None:
            raise EngineError(f"{type(model).__name__} is no masked-diffusion model: its config names no mask_token_id")
        self.model = model
        self.mask_token_id, self.shift = facts
        self.vocabulary = int(model.config.get_text_config().vocab_size)
        self.own_code = type(model).__module__.startswith(REMOTE_CODE)
        if self.own_code and cache != "none":
            raise EngineError("engine.cache: a model that brings its own code is run without; set it to none")
        if not self.own_code:
            self.model.set_attn_implementation(NAME)
        self.passes = 0
        self._cache = cache
        self._key_values = KeyValues()

    @classmethod
    def load(
        cls, folder: str, dtype: torch.dtype, device: str, cache: Cache = "none", trust_remote_code: bool = False
    ) -> Self:
        """From a Hugging Face folder or hub name.

        Raises:
            EngineError: it cannot be loaded; or see the class.
        """
        try:
            loader = auto_class(folder, trust_remote_code)
            model: Any = loader.from_pretrained(folder, dtype=dtype, trust_remote_code=trust_remote_code)
        except Exception as error:
            raise EngineError(f"the model in '{folder}' cannot be loaded: {type(error).__name__}: {error}") from error
        return cls(model.to(device).eval().requires_grad_(False), cache)

    def add_adapters(self, rank: int, targets: Sequence[str]) -> None:
        """Put adapters of this rank, without a scale, on each targeted linear layer; they are 0 at first.

        Raises:
            EngineError: the model has no such layers.
        """
        about = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets), lora_dropout=0.0)
        try:
            inject_adapter_in_model(about, self.model, ADAPTER)
        except ValueError as error:
            raise EngineError(f"learner.lora.targets: {error}") from error
        dtype = next(self.model.parameters()).dtype
        for name, weight in self.model.named_parameters():
            if ".lora_" in name:
                weight.data = weight.data.to(self.device, dtype)
        self.model.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def logits(self, ids: Tensor, padding: Sequence[int], block: slice, first: bool) -> Tensor:
        """Logits of the tokens of one block.

        Args:
            ids: (B, L) int64, the rows as they are now.
            padding: columns of padding at the left of each row.
            block: its columns; every row has at least ``shift`` tokens before it.
            first: whether this is the block's first step, in which all columns are computed.

        Returns:
            (B, block, V), in the model's dtype.
        """
        start, cache = block.start - self.shift, self._key_values
        columns = slice(0, ids.shape[1])
        cache.seen = self._seen(padding, ids)
        cache.mode = "pass"
        if self._cache != "none" and first:
            cache.mode, cache.columns = "record", start if self._cache == "prefix" else ids.shape[1]
        elif self._cache == "prefix":
            cache.mode, columns = "before", slice(start, ids.shape[1])
        elif self._cache == "dual":
            cache.mode, cache.start, columns = "within", start, slice(start, block.stop)
        rows = slice(start - columns.start, block.stop - self.shift - columns.start)
        return self._forward(ids, padding, columns, rows)

    def all_logits(self, ids: Tensor) -> Tensor:
        """(B, L, V) of rows without padding, without a cache; entry n is of token n (of token ``shift`` and later)."""
        self._key_values.mode, self._key_values.seen = "pass", None
        whole = slice(0, ids.shape[1])
        logits = self._forward(ids, [0] * len(ids), whole, whole)
        return logits if not self.shift else logits.roll(self.shift, dims=1)

    @torch.no_grad()
    def _forward(self, ids: Tensor, padding: Sequence[int], columns: slice, rows: slice) -> Tensor:
        self.passes += 1
        if self.own_code:
            logits: Tensor = self.model(input_ids=ids).logits[:, rows]
            return logits
        left = torch.tensor(padding, device=ids.device)[:, None]
        positions = (torch.arange(columns.start, columns.stop, device=ids.device)[None] - left).clamp(min=0)
        hidden = self.model.base_model(
            input_ids=ids[:, columns], position_ids=positions, key_values=self._key_values, use_cache=False
        )[0]
        head: Tensor = self.model.get_output_embeddings()(hidden[:, rows])
        return head

    def _seen(self, padding: Sequence[int], ids: Tensor) -> Tensor | None:
        if not any(padding):
            return None
        left = torch.tensor(padding, device=ids.device)[:, None]
        return (torch.arange(ids.shape[1], device=ids.device)[None] >= left)[:, None, None]
