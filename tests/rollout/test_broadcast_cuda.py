"""A broadcast into a vLLM engine on a GPU, in place, with gloo in NCCL's place since NCCL refuses two ends on one GPU.

Run it in a process of its own: vLLM takes the process's GPU.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlpost.rollout.transport.ends import Rendezvous
from rlpost.rollout.vllm.config import VllmConfig, engine_environment
from rlpost.rollout.weight_update import WeightUpdate
from tests.support.vllm_host import CONTEXT, STOP, perturbed, reference_logprobs, small_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
PROBE = [[3, 14, 15, 92, 65, 35, 89, 79]]


def test_a_broadcast_reaches_an_engine_on_a_gpu(vllm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in engine_environment(VllmConfig(), "cuda").items():
        monkeypatch.setitem(os.environ, name, value)
    from rlpost.rollout.vllm import broadcast
    from rlpost.rollout.vllm.engine import VllmEngine

    class ThroughTheHost:
        """In the place of vLLM's communicator."""

        def __init__(self, master_address: str, master_port: int, rank: int, world_size: int, device: Any) -> None:
            self._gloo = broadcast._Gloo(master_address, master_port, rank, world_size)

        def broadcast(self, tensor: torch.Tensor, src: int) -> None:
            host = tensor.cpu()
            self._gloo.broadcast(host, src)
            tensor.copy_(host)

        def destroy(self) -> None:
            self._gloo.destroy()

    monkeypatch.setattr(broadcast, "stateless_init_process_group", ThroughTheHost)
    monkeypatch.setattr(broadcast, "CHUNK_BYTES", 50_000)  # several broadcasts an update
    config = VllmConfig(slots=4, enforce_eager=True, kv_cache_gib=0.5, gpu_memory_utilization=0.2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def play() -> list[float]:
        engine = VllmEngine(str(vllm_folder), config, CONTEXT, [STOP], transport="nccl")
        opened: list[broadcast.Broadcast] = []
        device, where = torch.device("cuda", 0), Rendezvous("127.0.0.1", port, 2)
        joining = threading.Thread(target=lambda: opened.append(broadcast.Broadcast(where, device)), daemon=True)
        joining.start()
        await engine.connect(replace(where, rank=1))
        joining.join(30)
        gaps = []
        model = small_model()
        for version in (1, 2):
            perturbed(model, version)
            weights = {name: weight.detach().to(device, torch.bfloat16) for name, weight in model.named_parameters()}
            shapes = [tuple(weight.shape) for weight in weights.values()]
            fields = (list(weights), ["bfloat16"] * len(weights), shapes, "nccl", [None] * len(weights))
            sending = threading.Thread(target=opened[0].send, args=(iter(weights.items()),), daemon=True)
            sending.start()
            await engine.update_weights(WeightUpdate(version, *fields))
            sending.join(30)
            found = (await engine.probe(PROBE, 1.0, 0)).fixed_logprobs[0]
            gaps.append(float(np.abs(found - reference_logprobs(model, PROBE[0], 1.0)).mean()))
        await engine.close()
        return gaps

    assert max(asyncio.run(play())) < 0.05  # of other weights it is above 0.5; bf16 alone makes 0.01 to 0.02
