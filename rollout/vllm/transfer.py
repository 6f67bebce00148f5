"""How published weights get into vLLM: the receiver in each of its worker processes.

It is registered through vLLM's plugin entry point, so workers of tensor-parallel engines have it as well, and asks the
run's transport for the tensors. Where a layer computes with its weights as they are in a checkpoint, they are written
in place; else vLLM's layerwise reload takes the layers apart and puts them together again, which takes several times
longer. What the model then holds is read back. Left out: vLLM's labels of weight versions (the engine counts them).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

from rlpost.rollout.digest import Held
from rlpost.rollout.transport.ends import Rendezvous
from rlpost.rollout.transport.registry import find
from rlpost.rollout.vllm.experts import forget_expert_kernels
from rlpost.rollout.vllm.readback import ReadBack
from rlpost.rollout.weight_update import WeightUpdate

RECEIVER = "rlpost"
"""vLLM's name of the receiver."""
NOT_TAKEN = {"GptOssForCausalLM"}
"""Models that vLLM does not compute with new weights on a GPU, whatever it was sent."""


def register() -> None:
    """Entry point of the plugin; vLLM may call it several times in one process."""
    with contextlib.suppress(ValueError):  # registered already
        WeightTransferEngineFactory.register_engine(RECEIVER, Receiver)


def in_place(receiver: WeightTransferEngine[Any, Any]) -> bool:
    """Whether the model's loaders may write into its live weights: on a GPU, where nothing is quantised and no layer
    keeps its weights in another form than a checkpoint's (mixtures of experts and latent attention do)."""
    config: Any = receiver.model_config
    names = (type(module).__name__ for module in receiver.model.modules())
    changed = any("MoE" in name or "MLA" in name or "Mamba" in name for name in names)
    return receiver.device.type != "cpu" and config.quantization is None and not changed


@dataclass
class Beginning(WeightTransferInitInfo):
    """The transport's name; later, for one that connects, where its ends meet, with the engine's first rank."""

    transport: str
    where: Rendezvous | None = None


@dataclass
class Publication(WeightTransferUpdateInfo):
    """All parameters of one version."""

    update: WeightUpdate


class Receiver(WeightTransferEngine[Beginning, Publication]):
    """Loads what the transport brings into a vLLM model, on a CPU or a GPU."""

    init_info_cls = Beginning
    update_info_cls = Publication
    held: Held
    """What the model holds of the last update; see ``ReadBack``."""

    def init_transfer_engine(self, init_info: Beginning) -> None:
        """Make the transport; where it connects, later meet the sender and the other engines."""
        if init_info.where is None:
            self._transport = find(init_info.transport)
            return
        rank = init_info.where.rank + self.parallel_config.rank
        self._transport.connect(replace(init_info.where, rank=rank), self.device)

    def start_weight_update(self) -> None:
        """Give the model's layers their checkpoint form again, so that checkpoint weights fit.

        Raises:
            NotImplementedError: a model that vLLM is known not to take whole.
        """
        if self.device.type != "cpu" and type(self.model).__name__ in NOT_TAKEN:
            raise NotImplementedError(
                f"{type(self.model).__name__}: after an update on a GPU vLLM computes another model than the learner "
                "(0.1 nats apart, measured with vLLM 0.25); train adapters (learner.lora), which it serves right"
            )
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        self._watch = ReadBack(at_end=in_place(self))
        if self.device.type == "cpu":
            forget_expert_kernels(self.model)
        if not in_place(self):
            initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """As in the base class, which would also wait for an accelerator that a CPU does not have."""
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: Publication) -> None:
        """Hand every parameter to the model's own loaders."""
        model: Any = self.model
        with self._watch:
            model.load_weights(self._watch.handing(self._transport.tensors(update_info.update)))

    def finish_weight_update(self) -> None:
        """Bring the layers back into the form the kernels use."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        if not in_place(self):
            with self._watch:
                finalize_layerwise_reload(self.model, self.model_config)
        if self.device.type == "cpu":
            repack_tied_heads(self.model)
        self.held = self._watch.pieces()
        del self._watch

    def load_adapters(self, worker: Any, update: WeightUpdate) -> None:
        """Replace the adapters by those of ``update``; the model itself stays."""
        from rlpost.rollout.vllm.adapters import load

        self.held = load(worker, dict(self._transport.tensors(update)), update.rank)

    def shutdown(self) -> None:
        """Leave the others, where there are any."""
        self._transport.close()

    @staticmethod
    def trainer_send_weights(iterator: Any, trainer_args: Any) -> None:
        """vLLM 0.25 wants a sender on the same class; weights are published as a WeightUpdate instead."""
        raise NotImplementedError("publish a rlpost.rollout.weight_update.WeightUpdate through the rollout worker")


def load_adapters(worker: Any, update: WeightUpdate) -> None:
    """In one of vLLM's worker processes: see ``Receiver.load_adapters``."""
    worker.weight_transfer_engine.load_adapters(worker, update)


def held(worker: Any) -> Held:
    """In one of vLLM's worker processes: what it holds of the last update."""
    found: Held = worker.weight_transfer_engine.held
    return found


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
