"""How published weights get into vLLM: the receiver in each of its worker processes, and what is sent to it.

Receivers are registered through vLLM's plugin entry point, so workers of tensor-parallel engines have them as well.
Where a layer computes with its weights as they are in a checkpoint, they are written in place; else vLLM's layerwise
reload takes the layers apart and puts them together again, which takes several times longer. Left out: NCCL between
nodes, and vLLM's labels of weight versions (the adapter counts versions itself).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferEngine

from rollout.parameters import as_tensor
from rollout.weight_update import WeightUpdate

BACKENDS = {"object_store": "rlpost", "ipc": "rlpost_ipc"}
"""Our names of transports to vLLM's names of receivers."""


def register() -> None:
    """Entry point of the plugin; vLLM may call it several times in one process."""
    for transport, receiver in (("object_store", ObjectStoreReceiver), ("ipc", IpcReceiver)):
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
    fields: dict[str, Any] = {
        "names": update.names,
        "dtype_names": update.dtypes,
        "shapes": [list(shape) for shape in update.shapes],
    }
    return fields | {"ipc_handles" if update.transport == "ipc" else "arrays": update.payload}


@dataclass
class ObjectStoreInit(WeightTransferInitInfo):
    """Nothing to agree on beforehand."""


@dataclass
class ObjectStoreUpdate(WeightTransferUpdateInfo):
    """All parameters of one version; ``arrays`` as in WeightUpdate.payload."""

    names: list[str] = field(default_factory=list)
    dtype_names: list[str] = field(default_factory=list)
    shapes: list[list[int]] = field(default_factory=list)
    arrays: list[NDArray[Any]] = field(default_factory=list)


class ObjectStoreReceiver(WeightTransferEngine[ObjectStoreInit, ObjectStoreUpdate]):
    """Loads NumPy arrays into a vLLM model, layer by layer, on a CPU or a GPU."""

    init_info_cls = ObjectStoreInit
    update_info_cls = ObjectStoreUpdate

    def init_transfer_engine(self, init_info: ObjectStoreInit) -> None:
        """No rendezvous is needed."""

    def start_weight_update(self) -> None:
        """Give the model's layers their checkpoint form again, so that checkpoint weights fit."""
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        if not in_place(self):
            initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """As in the base class, which would also wait for an accelerator that a CPU does not have."""
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: ObjectStoreUpdate) -> None:
        """Hand every parameter to the model's own loaders."""
        model: Any = self.model
        model.load_weights(self._tensors(update_info))

    def _tensors(self, update: ObjectStoreUpdate) -> Iterator[tuple[str, torch.Tensor]]:
        for name, dtype_name, array in zip(update.names, update.dtype_names, update.arrays, strict=True):
            yield name, as_tensor(array, dtype_name)

    def finish_weight_update(self) -> None:
        """Bring the layers back into the form the kernels use."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        if not in_place(self):
            finalize_layerwise_reload(self.model, self.model_config)
        if self.device.type == "cpu":
            repack_tied_heads(self.model)

    def shutdown(self) -> None:
        """Nothing is held between updates."""

    @staticmethod
    def trainer_send_weights(iterator: Any, trainer_args: Any) -> None:
        """vLLM 0.25 wants a sender on the same class; weights are published as a WeightUpdate instead."""
        raise NotImplementedError("publish a rollout.weight_update.WeightUpdate through the rollout worker")


class IpcReceiver(IPCWeightTransferEngine):
    """vLLM's receiver of CUDA IPC handles, writing in place where that is enough."""

    def start_weight_update(self) -> None:
        """As in the base class, where the layers must change their form."""
        if not in_place(self):
            super().start_weight_update()

    def finish_weight_update(self) -> None:
        """Likewise."""
        if not in_place(self):
            super().finish_weight_update()


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
