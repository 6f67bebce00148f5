"""Mixtures of experts on a CPU, where vLLM computes with a packed copy of the experts' weights.

It packs them when it builds an expert kernel, at the first load only: later weights would be used as if they were
packed. Left out: GPUs, whose kernels take new weights as they are.
"""

from __future__ import annotations

from typing import Any

import torch


def forget_expert_kernels(model: torch.nn.Module) -> None:
    """Before weights are loaded again on a CPU: let every layer of experts build its kernel anew, packing included."""
    for module in model.modules():
        method: Any = getattr(module, "quant_method", None)
        if getattr(method, "moe_kernel", None) is not None:
            method.moe_kernel = None
