"""Weights in a buffer on the GPU that learner and engines share, read there through its CUDA IPC handle.

One handle a weight would take an engine longer to open than the weights to read. A buffer a publication would have to
be given back, and where two engines had read it it was seen never to be. So there is one buffer, shared once and for
good. Left out: other GPUs' memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.multiprocessing.reductions import rebuild_cuda_tensor, reduce_tensor

from rlpost.rollout.transport.base import Transport
from rlpost.rollout.transport.ends import Bundle, WeightSource
from rlpost.rollout.weight_update import WeightUpdate


class CudaIpc(Transport):
    """The payload is ``{gpu_uuid: reduce_tensor(buffer)[1]}`` of a buffer of bytes at the parameter that it begins
    with, None at those that follow in it without a gap. The next publication overwrites this one."""

    description = "by CUDA IPC on the shared GPU"
    automatic = True
    _buffer: torch.Tensor | None = None
    _handle: dict[str, tuple[Any, ...]]

    def refusal(self, bundles: Sequence[Bundle]) -> str:
        """One GPU for all, with a rank on it."""
        if len(bundles) == 1 and bundles[0].ranks:
            return ""
        if not bundles:
            return "passes weights within one GPU, and this run is on a CPU; set sync.transport: auto"
        return (
            "passes weights within one GPU, and learner and rollout workers are on several here; set sync.transport: "
            "nccl, or auto"
        )

    def parts(self, weights: WeightSource, version: int) -> Iterator[WeightUpdate]:
        """The one record of the one rank."""
        for update in weights.shares(version, self.name, lambda weight: weight):
            update.payload = self._fill(weights, update.payload)
            yield update

    def _fill(self, weights: WeightSource, sent: list[torch.Tensor]) -> list[Any]:
        """Copy ``sent`` into the buffer, over what was there; the payload that says so."""
        if self._buffer is None:
            self._buffer = weights.shareable(sum(weight.nbytes for weight in sent))
            gpu = str(torch.cuda.get_device_properties(weights.device).uuid)
            self._handle = {gpu: reduce_tensor(self._buffer)[1]}
        torch.cat([weight.flatten().view(torch.uint8) for weight in sent], out=self._buffer)
        torch.cuda.synchronize(weights.device)  # the engine reads in a stream that knows nothing of ours
        return [self._handle, *[None] * (len(sent) - 1)]

    def tensors(self, update: WeightUpdate) -> Iterator[tuple[str, torch.Tensor]]:
        """The parts of the learner's buffer."""
        buffer, place = torch.empty(0), 0
        fields = zip(update.names, update.dtypes, update.shapes, update.payload, strict=True)
        for name, dtype_name, shape, sent in fields:
            if sent is not None:
                buffer, place = opened(sent), 0
            dtype = getattr(torch, dtype_name)
            size = math.prod(shape) * dtype.itemsize
            yield name, buffer[place : place + size].view(dtype).view(shape)
            place += size

    def close(self) -> None:
        """Free the buffer."""
        self._buffer = None


def opened(handles: dict[str, tuple[Any, ...]]) -> torch.Tensor:
    """The buffer behind a CUDA IPC handle."""
    handle = list(handles[str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)])
    handle[6] = torch.cuda.current_device()  # the sender may count its GPUs differently
    buffer: torch.Tensor = rebuild_cuda_tensor(*handle)
    return buffer
