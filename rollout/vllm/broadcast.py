"""A broadcast of weights from the learner's GPU into every engine's, a few layers at a time, by vLLM's communicator.

Where there is no GPU it runs through gloo, so that all but NCCL itself is the same there. Left out: when to send and
what the weights are (transport/nccl.py), and how a model takes them (transfer.py).
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from vllm.distributed.utils import stateless_init_torch_distributed_process_group
from vllm.distributed.weight_transfer.nccl_common import stateless_init_process_group
from vllm.distributed.weight_transfer.packed_tensor import pack_tensors, unpack_tensor

from rlpost.rollout.transport.ends import Rendezvous
from rlpost.rollout.weight_update import WeightUpdate

CHUNK_BYTES = 1 << 28
"""A broadcast ends with the parameter that takes it beyond this: many small ones would wait for each other."""
Parameter = tuple[str, tuple[int, ...], torch.dtype, int]
"""Name, shape, dtype and size in bytes."""


class Broadcast:
    """One end, in a process that has the weights (rank 0) or a part of an engine. Blocks until all have joined.

    Args:
        where: they meet, and as which rank.
        device: where the weights are, or go.
    """

    def __init__(self, where: Rendezvous, device: torch.device) -> None:
        self._device = device
        self._group: Any
        on_gpu = device.type != "cpu"
        self._stream = torch.cuda.Stream(device) if on_gpu and where.rank == 0 else None
        with self._on_its_stream():
            ends = (where.host, where.port, where.rank, where.world)
            self._group = stateless_init_process_group(*ends, device.index) if on_gpu else _Gloo(*ends)

    def send(self, weights: Iterator[tuple[str, torch.Tensor]]) -> None:
        """Broadcast weights, in the order that the engines were told, without ever holding more than a chunk."""
        with self._on_its_stream(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*exceeds buffer_size_bytes")
            while (chunk := pack_tensors(weights, lambda named: named[1], CHUNK_BYTES)) is not None:
                self._group.broadcast(chunk.packed_tensor, src=0)

    def receive(self, update: WeightUpdate) -> Iterator[tuple[str, torch.Tensor]]:
        """Names and tensors, chunk after chunk, each taken when the one before has been read."""
        for chunk in _chunks(update):
            names, shapes, dtypes, sizes = map(list, zip(*chunk, strict=True))
            buffer = torch.empty(sum(sizes), dtype=torch.uint8, device=self._device)
            self._group.broadcast(buffer, src=0)
            yield from unpack_tensor(buffer, names, shapes, dtypes, sizes)

    def close(self) -> None:
        """Leave the others."""
        self._group.destroy()

    @contextlib.contextmanager
    def _on_its_stream(self) -> Iterator[None]:
        """vLLM's communicator would else make a new stream the current one for all that the learner does later."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield
        self._stream.synchronize()


def _chunks(update: WeightUpdate) -> Iterator[list[Parameter]]:
    """The parameters of ``update``, divided as ``pack_tensors`` divides them."""
    chunk: list[Parameter] = []
    for name, shape, dtype_name in zip(update.names, update.shapes, update.dtypes, strict=True):
        dtype = getattr(torch, dtype_name)
        chunk.append((name, shape, dtype, math.prod(shape) * dtype.itemsize))
        if sum(size for *_, size in chunk) > CHUNK_BYTES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class _Gloo:
    """What is used of vLLM's NCCL communicator, without a GPU."""

    def __init__(self, host: str, port: int, rank: int, world: int) -> None:
        self._group: Any = stateless_init_torch_distributed_process_group(host, port, rank, world, "gloo")

    def broadcast(self, tensor: torch.Tensor, src: int) -> None:
        """In place; ends when this process's part is done."""
        self._group.broadcast(tensor, src).wait()

    def destroy(self) -> None:
        """Leave the group."""
        self._group = None
