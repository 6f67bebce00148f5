"""What a transport is told about its two ends: who shares GPUs, where they meet, and the weights that leave.

Left out: who implements this (the learner, the placement) and what becomes of it (each transport's file).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from rlpost.rollout.weight_update import WeightUpdate


@dataclass(frozen=True, slots=True)
class Bundle:
    """GPUs of one node that are reserved together.

    Attributes:
        node: number of the node.
        gpus: how many; one GPU may be shared by several actors.
        ranks, workers: the learner ranks and rollout workers on them.
    """

    node: int
    gpus: int
    ranks: tuple[int, ...] = ()
    workers: tuple[int, ...] = ()

    @property
    def who(self) -> str:
        """Who is on these GPUs, for messages."""
        named = [f"learner rank {rank}" for rank in self.ranks] + [f"rollout worker {one}" for one in self.workers]
        return " and ".join(named)


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """Where the learner and all engines meet: ``host:port``, as number ``rank`` of ``world``. The learner is 0; an
    engine over several GPUs is as many, from its ``rank`` on."""

    host: str
    port: int
    world: int
    rank: int = 0


class WeightSource(Protocol):
    """The weights on a rank of the learner, as a sender sees them: whole, in the compute dtype, in the names of the
    Hugging Face model. Iterating is a collective of all ranks, to be run through to its end.

    Attributes:
        rank: this rank; 0 is alone, or the one that speaks for all.
        device: where the weights are.
    """

    rank: int
    device: torch.device

    def full(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Names and weights, every one on every rank, one at a time; they may share memory with the live weights."""
        ...

    def announcement(self, version: int, transport: str) -> WeightUpdate:
        """The record of all that ``full`` will give, without payload; nothing is gathered."""
        ...

    def shares(self, version: int, transport: str, pack: Callable[[torch.Tensor], Any]) -> Iterator[WeightUpdate]:
        """This rank's share of the weights as records of a layer or so each, of a single rank as one record; ``pack``
        makes an entry of the payload of a weight, at once, so that no second model is ever held."""
        ...

    def shareable(self, size: int) -> torch.Tensor:
        """(size,) uint8 of this rank's GPU that other processes can open."""
        ...
