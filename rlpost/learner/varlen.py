"""torch's variable-length FlashAttention, whose arguments changed between the releases we support.

Left out: the flash-attn package (torch brings the same kernels) and anything but self-attention.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # a release that has none
    varlen_attn = None  # type: ignore[assignment]

_PARAMETERS = frozenset() if varlen_attn is None else frozenset(inspect.signature(varlen_attn).parameters)
"""Names of its arguments; read once, since ``varlen_attention`` is traced when layers are compiled."""


def available(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel runs there: CUDA, half precision, and a torch that has it with windows."""
    return device.type == "cuda" and dtype in (torch.bfloat16, torch.float16) and "window_size" in _PARAMETERS


def varlen_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seqlens: Tensor,
    longest: int,
    scaling: float | None,
    window: tuple[int, int],
) -> Tensor:
    """Attention of packed rows.

    Args:
        query: (N, Hq, D); key and value: (N, Hkv, D).
        cu_seqlens: (S + 1,) int32 bounds of the sequences.
        longest: length of the longest one.
        scaling: factor of the scores; None: 1 / sqrt(D).
        window: positions to the left and to the right that a token sees beside itself; -1: all.

    Returns:
        (N, Hq, D).
    """
    options: dict[str, Any] = {"scale": scaling, "window_size": window}
    if "enable_gqa" in _PARAMETERS:  # earlier releases always share heads of keys and values
        options["enable_gqa"] = query.shape[1] != key.shape[1]
    output = varlen_attn(query, key, value, cu_seqlens, cu_seqlens, longest, longest, **options)
    assert isinstance(output, Tensor)
    return output
