"""Weights on their way out: the record that engines load, and the folder that transformers loads.

Both are made one weight at a time, gathered over ranks, so no second copy of the model lies beside the first; what is
sent is all there is. Adapters leave by themselves, unmerged: a merge rounds small updates away. Left out: carrying the
record (the runtime's) and loading it (rollout).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlpost.learner.adapter_files import write_adapters
from rlpost.learner.config import LoraConfig
from rlpost.learner.gpu_memory import whole_segments
from rlpost.learner.policy import PolicyModel
from rlpost.learner.sharding import Ranks
from rlpost.learner.source import GENERATION, write_model
from rlpost.rollout.digest import Sent, Unread, read, whole_piece
from rlpost.rollout.hf_names import layer_of
from rlpost.rollout.weight_update import WeightUpdate

_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_BESIDE_WEIGHTS = ("*.json", "*.jinja", "*.model", "*.txt", "*.py")


class PublishedWeights:
    """The current weights of a rank, as transports ask for them; implements ``WeightSource``. Where only adapters are
    trained, these alone.

    Args:
        policy: the model.
        ranks: its ranks.
        dtype: what engines compute in, and so what weights travel in.
        rank: of the adapters; 0: all weights are trained.
    """

    def __init__(self, policy: PolicyModel, ranks: Ranks, dtype: torch.dtype, rank: int) -> None:
        self._policy, self._ranks, self._dtype, self._adapters = policy, ranks, dtype, rank
        self.rank, self.device = ranks.rank, policy.device
        self._digests: dict[str, Unread] = {}
        self._version = -1

    def begin(self, version: int) -> None:
        """What is given from now on is ``version``."""
        self._digests, self._version = {}, version

    def full(self) -> Iterator[tuple[str, Tensor]]:
        """See WeightSource."""
        policy = self._policy
        given = policy.adapter_weights(self._dtype) if self._adapters else policy.full_weights(self._dtype)
        for name, weight in given:
            if self.rank == 0:
                self._digests[name] = whole_piece(weight)
            yield name, weight

    def sent(self, version: int) -> dict[str, Sent]:
        """On rank 0, the digests of what ``full`` gave as ``version``: of the weights themselves, not of a record."""
        if version != self._version:
            return {}
        pieces = read(list(self._digests.values()))
        return {name: Sent(piece.digest, piece.elements) for name, piece in zip(self._digests, pieces, strict=True)}

    def announcement(self, version: int, transport: str) -> WeightUpdate:
        """See WeightSource."""
        policy = self._policy
        given = policy.announced_adapters(self._dtype) if self._adapters else policy.announced(self._dtype)
        names, dtypes, shapes = map(list, zip(*given, strict=True))
        nothing: list[Any] = [None] * len(names)
        dtype_names = [_NAMES[dtype] for dtype in dtypes]
        return WeightUpdate(version, names, dtype_names, shapes, transport, nothing, self._adapters)

    def shares(self, version: int, transport: str, pack: Callable[[Tensor], Any]) -> Iterator[WeightUpdate]:
        """See WeightSource. Of several ranks each gives every so many-th layer as a part of its own, so that no process
        ever holds the whole model: send a part and drop it before asking for the next."""
        ranks = self._ranks
        update, layers, layer = self._record(version, transport), 0, ""
        for name, weight in self.full():
            if ranks.world > 1 and layer_of(name) != layer:
                if update.names:
                    yield update
                layer, layers, update = layer_of(name), layers + 1, self._record(version, transport)
            if layers % ranks.world == ranks.rank:
                update.names.append(name)
                update.dtypes.append(_NAMES[weight.dtype])
                update.shapes.append(tuple(weight.shape))
                update.payload.append(pack(weight))
        if update.names:
            yield update

    def _record(self, version: int, transport: str) -> WeightUpdate:
        return WeightUpdate(version, transport=transport, rank=self._adapters)

    def shareable(self, size: int) -> Tensor:
        """See WeightSource."""
        with whole_segments():
            return torch.empty(size, dtype=torch.uint8, device=self.device)


def files_beside_weights(folder: Path) -> dict[str, bytes]:
    """Tokenizer, configuration and remote code of a model folder; kept in memory, as the folder may be a checkpoint
    that is removed later."""
    found = (file for pattern in _BESIDE_WEIGHTS for file in folder.glob(pattern))
    return {file.name: file.read_bytes() for file in found if not file.name.endswith(".index.json")}


def save_folder(
    policy: PolicyModel, ranks: Ranks, beside: Mapping[str, bytes], folder: Path, lora: LoraConfig | None, base: Path
) -> None:
    """Write a Hugging Face folder: fp32 masters, configuration and tokenizer; where only adapters are trained, a PEFT
    checkpoint of them for the model in ``base``. A collective; rank 0 writes."""
    given = policy.adapter_weights(torch.float32) if lora else policy.module_weights(torch.float32)
    weights = {name: weight.cpu() for name, weight in given if ranks.rank == 0}
    if ranks.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        for name, contents in beside.items():
            (folder / name).write_bytes(contents)
        if lora is not None:
            write_adapters(weights, lora, base, folder)
        else:
            write_model(policy.model, folder, beside.get(GENERATION), weights)
    ranks.barrier()
