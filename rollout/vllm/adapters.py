"""LoRA adapters inside vLLM, unmerged: taken from memory, and read back from where its kernels read them.

A merge into bfloat16 weights loses every change below half a unit in the last place of the weight, which is most of
them at the learning rates of RL. vLLM computes W x + B (A x) with the factors apart instead. Its own loader wants a
folder; here they come as tensors, with the scale alpha / rank already in B. Left out: several adapters at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from vllm.lora.lora_model import LoRAModel
from vllm.lora.peft_helper import PEFTHelper
from vllm.lora.request import LoRARequest

from rlpost.rollout.digest import Held
from rlpost.rollout.vllm.readback import ReadBack
from rlpost.rollout.weight_update import Adapters

NUMBER = 1
"""vLLM's number of the one adapter."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM makes room for; others are padded with zeros to the next."""


def request() -> LoRARequest:
    """What a request names the adapter by; the path is never read, since the adapter is loaded before any request."""
    return LoRARequest("policy", NUMBER, "in memory")


def adapter_arguments(adapters: Adapters) -> dict[str, Any]:
    """Keyword arguments of ``vllm.EngineArgs``. Only targeted layers are wrapped: others would cost time, and a wrapped
    output head miscounts the rows of a request whose prompt is scored.

    Raises:
        ValueError: the rank is beyond what vLLM serves.
    """
    room = next((size for size in RANKS if size >= adapters.rank), None)
    if room is None:
        raise ValueError(f"adapters of rank {adapters.rank}: vLLM serves up to {RANKS[-1]}; lower learner.lora.rank")
    ends = sorted({target.rpartition(".")[2] for target in adapters.targets})
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": room, "lora_target_modules": ends}


def load(worker: Any, factors: Mapping[str, Tensor], rank: int) -> Held:
    """Replace the adapter in one of vLLM's worker processes; what its kernels then read.

    Args:
        worker: vLLM's, as ``collective_rpc`` hands it over.
        factors: A (rank, in) and B (out, rank) of each layer by their names in a PEFT checkpoint.
        rank: theirs.

    Raises:
        ValueError: a layer that vLLM cannot serve an adapter on.
    """
    if absorbed := next((name for name in factors if ".kv_b_proj." in name), None):
        raise ValueError(
            f"'{absorbed}': vLLM folds kv_b_proj into its latent attention when it loads a model, where no adapter "
            "reaches it; leave 'kv_b_proj' out of learner.lora.targets"
        )
    manager = worker.model_runner.lora_manager
    inner = manager._adapter_manager
    if manager.device.type == "cpu" and any("MoE" in type(one).__name__ for one in inner.model.modules()):
        raise ValueError(
            "on a CPU vLLM serves no adapters for mixtures of experts, since its kernels for them need Triton; train "
            "all weights, or use a GPU"
        )
    mapper = getattr(inner.model, "hf_to_vllm_mapper", None)
    if mapper is not None:  # without the fusing of projections, which the manager does itself; by two names in vLLM
        plain = getattr(mapper, "get_rename_mapper", None) or getattr(mapper, "get_unstacked_mapper", None)
        mapper = mapper if plain is None else plain()
    # vLLM multiplies B by alpha / rank itself; it is in B already.
    about = PEFTHelper(r=rank, lora_alpha=rank, target_modules=[])
    held, dtype = ReadBack(at_end=True), manager.lora_config.lora_dtype
    own = {name: factor.to(manager.device, dtype, copy=True) for name, factor in factors.items()}
    adapter = LoRAModel.from_lora_tensors(
        NUMBER, dict(held.handing(own.items())), about, str(manager.device), dtype, weights_mapper=mapper
    )
    inner.remove_adapter(NUMBER)
    inner.add_adapter(adapter)
    with held:  # which copies into the kernels' buffers
        inner.activate_adapter(NUMBER)
    pieces = held.pieces()
    lost = next((name for name in factors if name not in pieces), None)
    if lost is not None:
        layer = lost.removeprefix("base_model.model.").partition(".lora_")[0]
        raise ValueError(
            f"vLLM cannot serve an adapter on '{layer}' unmerged; leave '{layer.rpartition('.')[2]}' out of "
            "learner.lora.targets"
        )
    return pieces
