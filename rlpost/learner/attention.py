"""Attention over packed sequences: one row of N tokens, several whole sequences in it, none of which sees another.

It is registered with transformers under the name ``rlpost_packed``; no mask is registered for that name, so a model
builds none. The layout reaches the attention function through the forward pass's keyword arguments, also under
gradient checkpointing. On CUDA in half precision torch's variable-length FlashAttention runs, or for long sequences of
equal length cuDNN's attention; elsewhere queries, keys and values are gathered into right-padded rows of similar
length inside the attention alone, where causality (or, for a bidirectional model, a mask) keeps the padding out. Where
sequences share their first rows (sharing.py), attention gathers whole ones and drops the repeated results. Left out:
dropout (a policy's log-probs must not be random), soft-capping and attention sinks (own_forward.py computes such models
by their own attention).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
"""Name of the attention implementation in transformers; a compiled layer calls it between its graphs."""
TRACED = "rlpost_packed_traced"
"""The same, compiled with the layer: for the variable-length kernel, which is one operation whatever the lengths."""

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
        first: row where the group starts (its sequences are neighbours).
        gather: (B * L,) row of each padded position; None where all have length L and share nothing, so that no copy is
            needed.
        keep: (n,) padded position of each of the group's n own rows; None likewise.
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
    """Where the sequences of a packed row lie: S sequences, N tokens in all, n <= N rows.

    Attributes:
        position_ids: (1, n) int64, place of each row in its sequence.
        cu_seqlens: (S + 1,) int32, first token of each sequence, then N.
        longest: length of the longest sequence.
        padded: the variable-length kernel is not to be used.
        groups: for the padded path and for long sequences; empty where the variable-length kernel is used.
        causal: whether a token sees only those before it, or its whole sequence.
        gather: (N,) row of each token, for that kernel; None where no rows are shared.
        keep: (n,) token that each row is; None likewise.
    """

    position_ids: Tensor
    cu_seqlens: Tensor
    longest: int
    padded: bool
    groups: tuple[PaddedGroup, ...]
    causal: bool = True
    gather: Tensor | None = None
    keep: Tensor | None = None

    @classmethod
    def of(
        cls,
        lengths: Sequence[int],
        device: torch.device | str,
        padded: bool = True,
        causal: bool = True,
        rows: NDArray[np.int64] | None = None,
    ) -> PackedLayout:
        """Lay out sequences of these lengths, in this order; longest-first order wastes least on the padded path.

        ``rows`` (N,) is the row of each token where some are shared, see ``shared_rows``.
        """
        sizes = np.asarray(lengths, dtype=np.int64)
        starts = np.cumsum(sizes) - sizes
        positions = np.arange(sizes.sum()) - np.repeat(starts, sizes)
        own = np.ones(len(positions), dtype=np.bool_) if rows is None else owned(rows)
        places = np.arange(len(positions)) if rows is None else rows
        long = sizes.min() == sizes.max() >= _LONG
        gathers = rows is not None and not padded
        return cls(
            to_device(positions[own], device)[None],
            to_device(np.append(starts, sizes.sum()).astype(np.int32), device),
            int(sizes.max()),
            padded,
            tuple(_groups(sizes, starts, places, own, device)) if padded or long else (),
            causal,
            to_device(places, device) if gathers else None,
            to_device(np.flatnonzero(own), device) if gathers else None,
        )


def owned(rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) whether a token is the first to stand in its row."""
    highest: NDArray[np.int64] = np.maximum.accumulate(rows)
    return np.concatenate([[True], rows[1:] > highest[:-1]])


def _groups(
    lengths: NDArray[np.int64],
    starts: NDArray[np.int64],
    places: NDArray[np.int64],
    own: NDArray[np.bool_],
    device: torch.device | str,
) -> Iterator[PaddedGroup]:
    """Neighbouring sequences of similar length, together; ``places`` and ``own`` (N,) as above."""
    first = 0
    for last in range(1, len(lengths) + 1):
        window = lengths[first : last + 1]
        if last < len(lengths) and window.min() >= _SIMILAR * window.max():
            continue
        some, width = lengths[first:last, None], int(lengths[first:last].max())
        tokens = slice(starts[first], starts[last - 1] + lengths[last - 1])
        row = int(places[tokens][own[tokens]][0])
        if some.min() == width and own[tokens].all():
            yield PaddedGroup(len(some), width, row, None, None)
        else:
            within = np.arange(width)[None]
            token = starts[first:last, None] + np.minimum(within, some - 1)
            real = within < some
            yield PaddedGroup(
                len(some),
                width,
                row,
                to_device(places[token].ravel(), device),
                to_device(np.flatnonzero(real & own[token]), device),
                to_device(real, device)[:, None, None],
            )
        first = last


def to_device(array: NDArray[Any], device: torch.device | str) -> Tensor:
    """The array as a tensor there; on the way to a GPU the host does not wait for what the GPU is doing."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if torch.device(device).type == "cuda" else tensor


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
        query: (1, Hq, n, D) of a row's n tokens; key and value: (1, Hkv, n, D) with Hq a multiple of Hkv.
        scaling: factor of the scores; absent: 1 / sqrt(D).
        sliding_window: each token sees at most this many, itself included.
        packed_layout: given to the model's forward pass by ``PolicyModel``.

    Returns:
        ``(output (1, n, Hq, D), None)``.

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
    """(n, Hq, D) through torch's FlashAttention; heads of keys and values are shared by the kernel itself."""
    left = -1 if window is None or window >= layout.longest else window - 1
    right = 0 if layout.causal else -1
    if layout.gather is not None:
        query, key, value = (states.index_select(0, layout.gather) for states in (query, key, value))
    output = varlen_attention(query, key, value, layout.cu_seqlens, layout.longest, scaling, (left, right))
    return output if layout.keep is None else output.index_select(0, layout.keep)


@torch.compiler.disable  # groups differ from pack to pack, and each set of them would be compiled anew
def _padded(
    query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, scaling: float | None, window: int | None
) -> Tensor:
    """(n, Hq, D), group by group in padded rows."""
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
        flat = output.transpose(1, 2).reshape(group.rows * group.width, query.shape[1], -1)
        outputs.append(flat if group.keep is None else flat.index_select(0, group.keep))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _rows(states: Tensor, group: PaddedGroup) -> Tensor:
    """(n, H, D) -> the group's (B, H, L, D)."""
    if group.gather is None:
        own = states[group.first : group.first + group.rows * group.width]
    else:
        own = states.index_select(0, group.gather)
    return own.view(group.rows, group.width, *states.shape[1:]).transpose(1, 2)


AttentionInterface.register(NAME, torch.compiler.disable(packed_attention))
AttentionInterface.register(TRACED, packed_attention)
