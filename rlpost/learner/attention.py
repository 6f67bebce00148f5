"""Attention over packed sequences: one row of N tokens, several whole sequences in it, none of which sees another.

It is registered with transformers under the name ``rlpost_packed``; no mask is registered for that name, so a model
builds none. The layout reaches the attention function through the forward pass's keyword arguments, also under
gradient checkpointing. On CUDA in half precision torch's variable-length FlashAttention runs, or for long sequences of
equal length cuDNN's attention; elsewhere queries, keys and values are gathered into right-padded rows of similar
length inside the attention alone, where causality (or, for a bidirectional model, a mask) keeps the padding out. Left
out: dropout (a policy's log-probs must not be random), soft-capping and attention sinks.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface

from rlpost.learner.errors import ModelRefused
from rlpost.learner.varlen import varlen_attention

NAME = "rlpost_packed"
"""Name of the attention implementation in transformers."""

_LONG = 8192
"""From this length on, sequences of equal length go to cuDNN: it is faster than the variable-length kernel, but plans
anew for every shape."""
_FASTEST = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
_SIMILAR = 0.8  # sequences of a padded group are at least this fraction of its longest one


@dataclass(frozen=True, slots=True)
class PaddedGroup:
    """Sequences computed together where there is no variable-length kernel.

    Attributes:
        rows, width: B sequences, L the longest.
        first: packed position where the group starts (its sequences are neighbours).
        gather: (B * L,) packed position of each padded one; None where all have length L, so that no copy is needed.
        keep: (n,) padded position of each of the group's n packed ones; None likewise.
        real: (B, 1, 1, L) bool, false where padded; None likewise.
    """

    rows: int
    width: int
    first: int
    gather: Tensor | None
    keep: Tensor | None
    real: Tensor | None = None


@dataclass(frozen=True, slots=True)
class PackedLayout:
    """Where the sequences of a packed row lie.

    Attributes:
        position_ids: (1, N) int64, restarting at 0 in each sequence.
        cu_seqlens: (S + 1,) int32, first position of each sequence, then N.
        longest: length of the longest sequence.
        padded: the variable-length kernel is not to be used.
        groups: for the padded path and for long sequences; empty where the variable-length kernel is used.
        causal: whether a token sees only those before it, or its whole sequence.
    """

    position_ids: Tensor
    cu_seqlens: Tensor
    longest: int
    padded: bool
    groups: tuple[PaddedGroup, ...]
    causal: bool = True

    @classmethod
    def of(
        cls, lengths: Sequence[int], device: torch.device | str, padded: bool = True, causal: bool = True
    ) -> PackedLayout:
        """Lay out sequences of these lengths, in this order; longest-first order wastes least on the padded path."""
        ends = np.cumsum(lengths)
        starts = ends - lengths
        positions = np.arange(ends[-1]) - np.repeat(starts, lengths)
        long = min(lengths) == max(lengths) >= _LONG
        groups = tuple(_groups(lengths, starts, device)) if padded or long else ()
        return cls(
            to_device(positions, device)[None],
            to_device(np.concatenate([[0], ends]).astype(np.int32), device),
            int(max(lengths)),
            padded,
            groups,
            causal,
        )


def _groups(lengths: Sequence[int], starts: np.ndarray, device: torch.device | str) -> list[PaddedGroup]:
    """Neighbouring sequences of similar length, together."""
    groups, first = [], 0
    for last in range(1, len(lengths) + 1):
        window = lengths[first : last + 1]
        if last < len(lengths) and min(window) >= _SIMILAR * max(window):
            continue
        groups.append(_group(np.asarray(lengths[first:last]), int(starts[first]), device))
        first = last
    return groups


def _group(lengths: np.ndarray, first: int, device: torch.device | str) -> PaddedGroup:
    rows, width = len(lengths), int(lengths.max())
    if int(lengths.min()) == width:
        return PaddedGroup(rows, width, first, None, None)
    within = np.arange(width)[None]
    starts = np.cumsum(lengths) - lengths
    gather = starts[:, None] + np.minimum(within, lengths[:, None] - 1)
    real = within < lengths[:, None]
    return PaddedGroup(
        rows,
        width,
        first,
        to_device(gather.ravel(), device),
        to_device(np.flatnonzero(real), device),
        to_device(real, device)[:, None, None],
    )


def to_device(array: NDArray[Any], device: torch.device | str) -> Tensor:
    """The array as a tensor there; on the way to a GPU the host does not wait for what the GPU is doing."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if torch.device(device).type == "cuda" else tensor


@torch.compiler.disable
def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    packed_layout: PackedLayout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention within each sequence of a packed row, causal or not, in transformers' calling convention.

    Args:
        query: (1, Hq, N, D); key and value: (1, Hkv, N, D) with Hq a multiple of Hkv.
        scaling: factor of the scores; absent: 1 / sqrt(D).
        sliding_window: each token sees at most this many, itself included.
        packed_layout: given to the model's forward pass by ``PolicyModel``.

    Returns:
        ``(output (1, N, Hq, D), None)``.

    Raises:
        ModelRefused: the layout did not arrive, or the model wants something that is left out here.
    """
    if packed_layout is None:
        raise ModelRefused(f"{type(module).__name__} does not hand keyword arguments on to its attention function")
    if sliding_window is not None and not packed_layout.causal:
        raise ModelRefused(f"{type(module).__name__} uses a sliding window, which bidirectional attention has not")
    for unknown in ("softcap", "s_aux"):
        if kwargs.get(unknown) is not None:
            raise ModelRefused(f"{type(module).__name__} uses '{unknown}' in attention, which packed attention has not")
    rows_q, rows_k, rows_v = (states[0].transpose(0, 1) for states in (query, key, value))
    in_rows = packed_layout.padded or (packed_layout.groups and sliding_window is None)
    compute = _padded if in_rows else _varlen
    return compute(rows_q, rows_k, rows_v, packed_layout, scaling, sliding_window)[None], None


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, scaling: float | None, window: int | None
) -> Tensor:
    """(N, Hq, D) through torch's FlashAttention; heads of keys and values are shared by the kernel itself."""
    left = -1 if window is None or window >= layout.longest else window - 1
    right = 0 if layout.causal else -1
    return varlen_attention(query, key, value, layout.cu_seqlens, layout.longest, scaling, (left, right))


def _padded(
    query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, scaling: float | None, window: int | None
) -> Tensor:
    """(N, Hq, D), group by group in padded rows."""
    shared = query.shape[1] != key.shape[1]
    outputs = []
    for group in layout.groups:
        mask = None if layout.causal else group.real
        if window is not None and window < group.width:
            band = torch.ones(group.width, group.width, dtype=torch.bool, device=query.device).tril_()
            mask = band.triu_(1 - window)
        with sdpa_kernel(_FASTEST, set_priority=True) if query.is_cuda else nullcontext():
            output = functional.scaled_dot_product_attention(
                _rows(query, group),
                _rows(key, group),
                _rows(value, group),
                attn_mask=mask,
                is_causal=layout.causal and mask is None,
                scale=scaling,
                enable_gqa=shared,
            )
        flat = output.transpose(1, 2).reshape(group.rows * group.width, *query.shape[1:])
        outputs.append(flat if group.keep is None else flat.index_select(0, group.keep))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _rows(states: Tensor, group: PaddedGroup) -> Tensor:
    """(N, H, D) -> the group's (B, H, L, D)."""
    if group.gather is None:
        own = states[group.first : group.first + group.rows * group.width]
    else:
        own = states[group.first :].index_select(0, group.gather)
    return own.view(group.rows, group.width, *states.shape[1:]).transpose(1, 2)


AttentionInterface.register(NAME, packed_attention)
