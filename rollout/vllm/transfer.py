"""How published weights get into vLLM: the receiver in each of its worker processes, and what is sent to it.

Receivers are registered through vLLM's plugin entry point, so workers of tensor-parallel engines have them as well.
Where a layer computes with its weights as they are in a checkpoint, they are written in place; else vLLM's layerwise
reload takes the layers apart and puts them together again, which takes several times longer. By broadcast the weights
go from the learner's GPU into every engine's, a few layers at a time (through gloo where there is no GPU, so that all
but NCCL itself is the same there). Left out: vLLM's labels of weight versions (the adapter counts versions itself).
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from vllm.distributed.utils import stateless_init_torch_distributed_process_group
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.nccl_common import stateless_init_process_group
from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine
from vllm.distributed.weight_transfer.packed_tensor import pack_tensors, unpack_tensor

from rlpost.rollout.parameters import tensors_of
from rlpost.rollout.vllm.experts import forget_expert_kernels
from rlpost.rollout.weight_update import WeightUpdate

BACKENDS = {"object_store": "rlpost", "ipc": "rlpost", "nccl": "rlpost_nccl"}
"""Our names of transports to vLLM's names of receivers."""
CHUNK_BYTES = 1 << 28
"""A broadcast ends with the parameter that takes it beyond this: many small ones would wait for each other."""


def register() -> None:
    """Entry point of the plugin; vLLM may call it several times in one process."""
    for transport, receiver in (("object_store", ReferenceReceiver), ("nccl", NcclReceiver)):
        with contextlib.suppress(ValueError):  # registered already
            WeightTransferEngineFactory.register_engine(BACKENDS[transport], receiver)


def in_place(receiver: WeightTransferEngine[Any, Any]) -> bool:
    """Whether the model's loaders may write into its live weights: on a GPU, where nothing is quantised and no layer
    keeps its weights in another form than a checkpoint's (mixtures of experts and latent attention do)."""
    config: Any = receiver.model_config
    names = (type(module).__name__ for module in receiver.model.modules())
    changed = any("MoE" in name or "MLA" in name or "Mamba" in name for name in names)
    return receiver.device.type != "cpu" and config.quantization is None and not changed


def update_info(update: WeightUpdate) -> dict[str, Any]:
    """``update`` in the form its receiver takes."""
    if update.transport != "nccl":
        return {"update": update}
    return {
        "names": update.names,
        "dtype_names": update.dtypes,
        "shapes": [list(shape) for shape in update.shapes],
    }


@dataclass
class NoInit(WeightTransferInitInfo):
    """Nothing to agree on beforehand."""


@dataclass
class ReferenceUpdate(WeightTransferUpdateInfo):
    """All parameters of one version."""

    update: WeightUpdate


class _Reload:
    """How an update begins and ends, on a CPU or a GPU."""

    def start_weight_update(self: Any) -> None:
        """Give the model's layers their checkpoint form again, so that checkpoint weights fit."""
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        if self.device.type == "cpu":
            forget_expert_kernels(self.model)
        if not in_place(self):
            initialize_layerwise_reload(self.model)

    def update_weights(self: Any, update_info: dict[str, Any]) -> None:
        """As in the base class, which would also wait for an accelerator that a CPU does not have."""
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def finish_weight_update(self: Any) -> None:
        """Bring the layers back into the form the kernels use."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        if not in_place(self):
            finalize_layerwise_reload(self.model, self.model_config)
        if self.device.type == "cpu":
            repack_tied_heads(self.model)

    @staticmethod
    def trainer_send_weights(iterator: Any, trainer_args: Any) -> None:
        """vLLM 0.25 wants a sender on the same class; weights are published as a WeightUpdate instead."""
        raise NotImplementedError("publish a rlpost.rollout.weight_update.WeightUpdate through the rollout worker")


class ReferenceReceiver(_Reload, WeightTransferEngine[NoInit, ReferenceUpdate]):
    """Loads what an update refers to, arrays or a buffer of a process on the same GPU, into a vLLM model."""

    init_info_cls = NoInit
    update_info_cls = ReferenceUpdate

    def init_transfer_engine(self, init_info: NoInit) -> None:
        """No rendezvous is needed."""

    def receive_weights(self, update_info: ReferenceUpdate) -> None:
        """Hand every parameter to the model's own loaders."""
        model: Any = self.model
        model.load_weights(tensors_of(update_info.update))

    def shutdown(self) -> None:
        """Nothing is held between updates."""


class NcclReceiver(_Reload, NCCLWeightTransferEngine):
    """vLLM's receiver of broadcasts, for the chunks that ``Broadcast`` sends; may be connected anew."""

    def init_transfer_engine(self, init_info: Any) -> None:
        """Meet the sender and the other engines."""
        self.shutdown()
        if self.device.type != "cpu":
            super().init_transfer_engine(init_info)
            return
        where = (init_info.master_address, init_info.master_port)
        self.model_update_group: Any = _Gloo(
            *where, init_info.rank_offset + self.parallel_config.rank, init_info.world_size
        )

    def receive_weights(self, update_info: Any) -> None:
        """Take chunk after chunk, each as soon as the one before has been handed to the model's loaders."""
        chunk: list[tuple[str, list[int], torch.dtype, int]] = []
        filled = 0
        fields = zip(update_info.names, update_info.shapes, update_info.dtype_names, strict=True)
        for name, shape, dtype_name in fields:
            dtype = getattr(torch, dtype_name)
            size = math.prod(shape) * dtype.itemsize
            chunk.append((name, shape, dtype, size))
            filled += size
            if filled > CHUNK_BYTES:
                self._receive(chunk)
                chunk, filled = [], 0
        if chunk:
            self._receive(chunk)

    def _receive(self, chunk: list[tuple[str, list[int], torch.dtype, int]]) -> None:
        names, shapes, dtypes, sizes = map(list, zip(*chunk, strict=True))
        buffer = torch.empty(sum(sizes), dtype=torch.uint8, device=self.device)
        self.model_update_group.broadcast(buffer, src=0)
        model: Any = self.model
        model.load_weights(unpack_tensor(buffer, names, shapes, dtypes, sizes))


class Broadcast:
    """The sending end, in the process that has the weights: rank 0. Blocks until all engines have joined.

    Args:
        host, port: where they meet.
        world: the GPUs of all engines, and this one.
        device: where the weights are.
    """

    def __init__(self, host: str, port: int, world: int, device: torch.device) -> None:
        self._group: Any
        self._stream = None if device.type == "cpu" else torch.cuda.Stream(device)
        if self._stream is None:
            self._group = _Gloo(host, port, 0, world)
            return
        with self._on_its_stream():
            self._group = stateless_init_process_group(host, port, 0, world, device.index)

    def send(self, weights: Iterator[tuple[str, torch.Tensor]]) -> None:
        """Broadcast weights, in the order that the engines were told, without ever holding more than a chunk."""
        with self._on_its_stream(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*exceeds buffer_size_bytes")
            while (chunk := pack_tensors(weights, lambda named: named[1], CHUNK_BYTES)) is not None:
                self._group.broadcast(chunk.packed_tensor, src=0)

    @contextlib.contextmanager
    def _on_its_stream(self) -> Iterator[None]:
        """vLLM's communicator would else make a new stream the current one for all that this thread does later."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield
        self._stream.synchronize()


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


def repack_tied_heads(model: torch.nn.Module) -> None:
    """Rebuild the packed copy of every output head that shares its weight with another layer.

    On a CPU a head computes with a packed copy of its weight. A layerwise reload packs anew only the layers that
    weights were loaded into; a tied head is not among them and would go on with old weights without a word.
    """
    for module in model.modules():
        head: Any = getattr(module, "lm_head", None)
        method: Any = getattr(head, "quant_method", None)
        if hasattr(method, "process_weights_after_loading") and _shares_its_weight(head, model):
            method.process_weights_after_loading(head)


def _shares_its_weight(head: Any, model: torch.nn.Module) -> bool:
    weight = getattr(head, "weight", None)
    others = (other for other in model.modules() if other is not head)
    return weight is not None and any(getattr(other, "weight", None) is weight for other in others)
