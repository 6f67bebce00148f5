"""Ranks that hold one model between them: the process group, FSDP2, and the few collectives a step needs.

A rank's loss is a sum over its own tokens, divided by constants of the whole update, so gradients are *summed* over
ranks; FSDP2's own mean is switched off. A single rank in fp32 is a plain module and none of this is used. Left out:
tensor and pipeline parallelism.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from rlpost.learner.batch import LearnerError


class Ranks:
    """The ranks of one learner; every method is a collective that all of them must call.

    Args:
        rank, world: this rank, and how many there are.
        device: where the model is.
        rendezvous: ``tcp://host:port`` or ``file:///path``; not used where ``world`` is 1.
        timeout_s: seconds a collective waits for a rank that does not come.
        sharded: whether FSDP2 is used; a process group is started only then.

    Raises:
        LearnerError: several ranks and no rendezvous, or the ranks did not meet in time.
    """

    def __init__(
        self, rank: int, world: int, device: torch.device, rendezvous: str, timeout_s: float, sharded: bool
    ) -> None:
        self.rank, self.world, self.device = rank, world, device
        self.mesh: DeviceMesh | None = None
        self._owns_group = False
        if not sharded:
            return
        if not dist.is_initialized():
            self._start(rendezvous, timedelta(seconds=timeout_s))
        elif dist.get_world_size() != world:
            raise LearnerError(f"this process already belongs to {dist.get_world_size()} ranks, not to {world}")
        self.mesh = init_device_mesh(device.type, (world,))

    @staticmethod
    def device_of(kind: str, rank: int) -> torch.device:
        """This rank's device, made the current one; Ray shows each process only the GPU it was given."""
        if kind != "cuda":
            return torch.device(kind)
        index = rank % torch.cuda.device_count()
        torch.cuda.set_device(index)
        return torch.device("cuda", index)

    def _start(self, rendezvous: str, timeout: timedelta) -> None:
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        if self.world == 1:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)
        elif not rendezvous:
            raise LearnerError(f"{self.world} ranks need a rendezvous address")
        else:
            try:
                dist.init_process_group(
                    backend, init_method=rendezvous, rank=self.rank, world_size=self.world, timeout=timeout
                )
            except (dist.DistError, RuntimeError) as error:
                raise LearnerError(
                    f"learner rank {self.rank} did not meet the other {self.world - 1} at {rendezvous} within "
                    f"{timeout.total_seconds():.0f} s: {error}"
                ) from error
        self._owns_group = True

    def sum(self, values: Tensor) -> Tensor:
        """Sum over ranks, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def settle(self) -> None:
        """Wait until this rank's device has done all it was given, so that a clock read next is right."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.world > 1:
            dist.barrier()

    def close(self) -> None:
        """Leave the process group, if it was started here."""
        if self._owns_group and dist.is_initialized():
            dist.destroy_process_group()
        self._owns_group = False


def shard(root: nn.Module, layers: Sequence[nn.Module], mesh: DeviceMesh, compute: torch.dtype) -> None:
    """Shard ``root`` over ``mesh`` layer by layer, in place: masters keep their dtype, ``compute`` is used in between.

    What is in ``root`` but in no layer (embeddings, last norm, output head, tied or not) is gathered by the root's own
    forward pass, so everything that touches those must happen inside it. Without ``layers`` that is all of it: on a
    single rank, where nothing is saved by gathering late, this spares the host nearly all of FSDP2's work in a
    pack, and costs 8 bytes a weight for gradients on their way at the end of an update, when activations are gone.
    """
    policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32, cast_forward_inputs=True)
    alone = mesh.size() == 1  # then gathering is a copy that saves no memory worth its time
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=not alone)
    fully_shard(root, mesh=mesh, mp_policy=policy)
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sum


def whole(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The full tensor of a sharded one, in ``dtype`` where one is given; itself otherwise. A collective."""
    tensor = tensor.detach()
    if isinstance(tensor, DTensor) and tensor.device_mesh.size() == 1:
        tensor = tensor.to_local()  # what follows would take a DTensor ten times as long
    if dtype is not None:
        tensor = tensor.to(dtype)  # before it is gathered: half as much to gather
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def copy_whole(target: Tensor, source: Tensor) -> None:
    """Write a full tensor into ``target``, sharded or not."""
    with torch.no_grad():
        target.copy_(like(source.to(target.dtype), target))


def like(source: Tensor, target: Tensor) -> Tensor:
    """A full tensor placed and sharded the way ``target`` is."""
    if isinstance(target, DTensor):
        return distribute_tensor(source.to(target.device), target.device_mesh, target.placements, src_data_rank=None)
    return source.to(target.device)
