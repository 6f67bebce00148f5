"""Weights on their way out: the record that engines load, and the folder that transformers loads.

Both are made one weight at a time, gathered over ranks and with adapters merged, so no second copy of the model lies
beside the first; what is sent is all there is. Left out: carrying the record (the runtime's) and loading it (rollout).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlpost.learner.gpu_memory import whole_segments
from rlpost.learner.policy import PolicyModel
from rlpost.learner.sharding import Ranks
from rlpost.learner.source import quiet
from rlpost.rollout.weight_update import WeightUpdate

_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_BESIDE_WEIGHTS = ("*.json", "*.jinja", "*.model", "*.txt", "*.py")


class PublishedWeights:
    """The current weights of a rank, as transports ask for them; implements ``WeightSource``.

    Args:
        policy: the model.
        ranks: its ranks.
    """

    def __init__(self, policy: PolicyModel, ranks: Ranks) -> None:
        self._policy, self._ranks = policy, ranks
        self.rank, self.device = ranks.rank, policy.device

    def full(self) -> Iterator[tuple[str, Tensor]]:
        """See WeightSource."""
        return self._policy.full_weights(self._policy.compute)

    def announcement(self, version: int, transport: str) -> WeightUpdate:
        """See WeightSource."""
        named = [(name, tuple(weight.shape)) for name, weight in self._policy.plain_weights()]
        names, shapes = [name for name, _ in named], [shape for _, shape in named]
        dtypes = [_NAMES[self._policy.compute]] * len(names)
        return WeightUpdate(version, names, dtypes, shapes, transport, [None] * len(names))

    def shares(self, version: int, transport: str, pack: Callable[[Tensor], Any]) -> Iterator[WeightUpdate]:
        """See WeightSource. Of several ranks each gives every so many-th layer as a part of its own, so that no process
        ever holds the whole model: send a part and drop it before asking for the next."""
        ranks = self._ranks
        update, layers, layer = WeightUpdate(version, transport=transport), 0, ""
        for name, weight in self.full():
            if ranks.world > 1 and layer_of(name) != layer:
                if update.names:
                    yield update
                layer, layers, update = layer_of(name), layers + 1, WeightUpdate(version, transport=transport)
            if layers % ranks.world == ranks.rank:
                update.names.append(name)
                update.dtypes.append(_NAMES[weight.dtype])
                update.shapes.append(tuple(weight.shape))
                update.payload.append(pack(weight))
        if update.names:
            yield update

    def shareable(self, size: int) -> Tensor:
        """See WeightSource."""
        with whole_segments():
            return torch.empty(size, dtype=torch.uint8, device=self.device)


def layer_of(name: str) -> str:
    """The beginning of a weight's name that it shares with its layer: up to the first number; itself without one."""
    found = re.match(r".*?\.\d+\.", name)
    return found[0] if found else name


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
    for name, weight in policy.full_weights(dtype):
        if ranks.rank == 0:
            weights[name] = weight.cpu()
    if ranks.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        for name, contents in beside.items():
            (folder / name).write_bytes(contents)
        with quiet():
            policy.model.save_pretrained(folder, state_dict=weights)
    ranks.barrier()
