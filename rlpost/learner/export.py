"""Weights on their way out: the record that engines load, and the folder that transformers loads.

Both are made one weight at a time, gathered over ranks and with adapters merged, so no second copy of the model lies
beside the first; what is sent is all there is. Left out: carrying the record (the runtime's) and loading it (rollout).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlpost.learner.gpu_memory import whole_segments
from rlpost.learner.policy import PolicyModel
from rlpost.learner.sharding import Ranks
from rlpost.learner.source import GENERATION, write_model
from rlpost.rollout.hf_names import layer_of
from rlpost.rollout.weight_update import WeightUpdate

_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_BESIDE_WEIGHTS = ("*.json", "*.jinja", "*.model", "*.txt", "*.py")


def weight_updates(policy: PolicyModel, ranks: Ranks, version: int, transport: str) -> Iterator[WeightUpdate]:
    """The current weights in the compute dtype, in parts; a collective, to be run through to its end.

    One rank gives one part. Of several, each gives every so many-th layer as a part of its own, so that no process ever
    holds the whole model: send a part and drop it before asking for the next.

    Args:
        policy: the model.
        ranks: its ranks.
        version: the policy version these weights are.
        transport: ``object_store``; ``ipc``: the payload is of tensors, see ``IpcBuffer``.

    Returns:
        Arrays may share memory with the live weights: send or copy them before the next learning step.
    """
    update, layers, layer = WeightUpdate(version, transport=transport), 0, ""
    for name, weight in policy.full_weights(policy.compute):
        if ranks.world > 1 and layer_of(name) != layer:
            if update.names:
                yield update
            layer, layers, update = layer_of(name), layers + 1, WeightUpdate(version, transport=transport)
        if layers % ranks.world == ranks.rank:
            update.names.append(name)
            update.dtypes.append(_NAMES[weight.dtype])
            update.shapes.append(tuple(weight.shape))
            update.payload.append(weight if transport == "ipc" else as_numpy(weight))
    if update.names:
        yield update


def announcement(policy: PolicyModel, version: int) -> WeightUpdate:
    """What a broadcast of ``full_weights`` will bring; nothing is gathered."""
    names, dtypes, shapes = map(list, zip(*policy.announced(policy.compute), strict=True))
    return WeightUpdate(version, names, [_NAMES[dtype] for dtype in dtypes], shapes, "nccl", [None] * len(names))


def as_numpy(weight: Tensor) -> Any:
    """A NumPy array of the weight's shape; bfloat16, which NumPy does not have, as int16 of the same bits."""
    host = weight.cpu()
    return (host.view(torch.int16) if host.dtype is torch.bfloat16 else host).numpy()


class IpcBuffer:
    """The memory on a GPU that every publication by CUDA IPC goes through, shared once and for good.

    One handle a weight would take an engine longer to open than the weights to read. A buffer a publication would have
    to be given back, and where two engines had read it it was seen never to be.

    Args:
        weights: all that a publication carries, on the learner's GPU.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        from torch.multiprocessing.reductions import reduce_tensor

        size, device = sum(weight.nbytes for weight in weights), weights[0].device
        with whole_segments():
            self._bytes = torch.empty(size, dtype=torch.uint8, device=device)
        gpu = str(torch.cuda.get_device_properties(device).uuid)
        self._handle = {gpu: reduce_tensor(self._bytes)[1]}

    def fill(self, update: WeightUpdate) -> None:
        """Copy a payload of tensors into the buffer, and put the handle in its place; what was here is overwritten."""
        weights: list[Tensor] = update.payload
        torch.cat([weight.flatten().view(torch.uint8) for weight in weights], out=self._bytes)
        torch.cuda.synchronize(self._bytes.device)  # the engine reads in a stream that knows nothing of ours
        update.payload = [self._handle, *[None] * (len(weights) - 1)]


def files_beside_weights(folder: Path) -> dict[str, bytes]:
    """Tokenizer, configuration and remote code of a model folder; kept in memory, as the folder may be a checkpoint
    that is removed later."""
    found = (file for pattern in _BESIDE_WEIGHTS for file in folder.glob(pattern))
    return {file.name: file.read_bytes() for file in found if not file.name.endswith(".index.json")}


def save_folder(policy: PolicyModel, ranks: Ranks, beside: Mapping[str, bytes], folder: Path) -> None:
    """Write a Hugging Face folder: fp32 masters (compute dtype where only adapters are trained, merged), configuration
    and tokenizer. A collective; rank 0 writes."""
    dtype = policy.compute if policy.has_adapters else torch.float32
    weights: dict[str, Tensor] = {}
    for name, weight in policy.module_weights(dtype):
        if ranks.rank == 0:
            weights[name] = weight.cpu()
    if ranks.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        for name, contents in beside.items():
            (folder / name).write_bytes(contents)
        write_model(policy.model, folder, beside.get(GENERATION), weights)
    ranks.barrier()
