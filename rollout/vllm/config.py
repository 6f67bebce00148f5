"""The recipe's ``engine`` section, and the environment variables a process needs before it imports vllm.

Nothing here imports vllm: the driver reads this file to build a worker's ``runtime_env``, and variables set after
vllm's import come too late. Left out: the context length (``rollout.max_context`` decides it), sampling parameters
(a request's), and vLLM's several hundred other options.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

INTEL_OPENMP = "libiomp5.so"
CPU_CACHE_GIB = 1.0
"""Size of the KV cache on a CPU where the recipe names none."""
CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Sizes of an attention head that vLLM has CPU kernels for."""


class VllmConfig(BaseModel):
    """Keys of the recipe's ``engine`` section."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    dtype: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="type of the engine's weights and activations; auto: bf16 on cuda, fp32 on cpu"
    )
    slots: int = Field(128, ge=1, description="requests sampled at once; more of them wait")
    kv_cache_gib: float | None = Field(
        None,
        gt=0,
        description="memory of the KV cache, GiB; absent: 1 on a CPU, what gpu_memory_utilization leaves on a GPU",
    )
    gpu_memory_utilization: float = Field(
        0.4, gt=0, le=1, description="on a GPU: fraction of its memory for weights and KV cache together"
    )
    sleep: bool = Field(
        False,
        description="on a GPU at lag 0: weights wait in CPU memory and the cache is freed while the learner works",
    )
    tensor_parallel: int = Field(1, ge=1, description="GPUs one engine is spread over")
    enforce_eager: bool = Field(
        False, description="on a GPU: nothing is compiled and no CUDA graphs; starts sooner, samples up to 4x slower"
    )
    threads: int = Field(2, ge=1, description="on a CPU: OpenMP threads of one engine")

    def compute_dtype(self, device: str) -> Literal["fp32", "bf16", "fp16"]:
        """The dtype on ``device`` ("cpu" or "cuda"), with ``auto`` resolved."""
        if self.dtype == "auto":
            return "fp32" if device == "cpu" else "bf16"
        return self.dtype


def engine_environment(config: VllmConfig, device: str, adapters: bool = False) -> dict[str, str]:
    """Environment variables for a process that will host an engine.

    Args:
        config: the engine's keys.
        device: "cpu" or "cuda".
        adapters: it will serve adapters.

    Returns:
        For the ``env_vars`` of an actor's ``runtime_env``; they must be there before vllm is imported.
    """
    variables = {
        # The engine is stepped on a thread of the worker: a second process costs 20-40 s at start on a CPU.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        # Fixes the order of the scheduler's sets of request ids, for runs that must repeat bit for bit.
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": str(config.threads),
    }
    if device == "cpu" or config.enforce_eager or config.sleep or adapters:
        # Only vLLM's first model runner was tried so. Elsewhere vLLM chooses, for dense models the second, which takes
        # half of the host's work a step.
        variables["VLLM_USE_V2_MODEL_RUNNER"] = "0"
    if device == "cpu":
        return variables | _cpu_environment()
    # FlashInfer's sampler gives no log-probabilities of the distribution sampled from.
    return variables | {"VLLM_USE_FLASHINFER_SAMPLER": "0"}


def _cpu_environment() -> dict[str, str]:
    variables = {
        # vLLM compiles one small function of its sampler at the first request even in eager mode: 4 s, 25 s under load.
        "TORCH_COMPILE_DISABLE": "1",
        # OpenMP's threads spin for 200 ms after each parallel region by default: time the learner needs.
        "KMP_BLOCKTIME": "1",
    }
    openmp = intel_openmp()
    # Without it (vLLM then runs on GNU OpenMP) the same call took from 0.7 to 14 s, and larger models never ended.
    return variables | ({"LD_PRELOAD": str(openmp)} if openmp else {})


def intel_openmp() -> Path | None:
    """The OpenMP library that the intel-openmp wheel puts into this environment; ``None`` where it is missing."""
    folders = [Path(sys.prefix) / "lib", Path(sysconfig.get_path("data")) / "lib"]
    return next((folder / INTEL_OPENMP for folder in folders if (folder / INTEL_OPENMP).is_file()), None)
