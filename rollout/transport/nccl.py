"""Weights by NCCL broadcast from learner rank 0 into every GPU of every engine, no host copy between.

The communicator is vLLM's (vllm/broadcast.py), imported where the ends meet. Left out: GPUs that learner and engine
share, which NCCL refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from rlpost.rollout.transport.base import Transport
from rlpost.rollout.transport.ends import Bundle, Rendezvous, WeightSource
from rlpost.rollout.weight_update import WeightUpdate

if TYPE_CHECKING:
    from rlpost.rollout.vllm.broadcast import Broadcast


class Nccl(Transport):
    """The payload is None a name: the record says what the broadcast brings, in its order."""

    description = "by NCCL broadcast from learner rank 0, layer by layer"
    connects = True
    _broadcast: Broadcast | None = None

    def refusal(self, bundles: Sequence[Bundle]) -> str:
        """GPUs of their own for rank 0 and for every worker."""
        if not bundles:
            return (
                "sends weights from GPU to GPU, and this run is on a CPU, where they go through Ray's object store; "
                "set sync.transport: auto"
            )
        crowded = next((one for one in bundles if (0 in one.ranks) + len(one.workers) > 1), None)
        if crowded is None:
            return ""
        return (
            f"needs learner rank 0 and every rollout worker on GPUs of their own, and {crowded.who} share one (NCCL "
            "refuses that); set sync.transport: auto, or ask for fewer of them"
        )

    def parts(self, weights: WeightSource, version: int) -> Iterator[WeightUpdate]:
        """Rank 0 announces; nothing is gathered yet."""
        if weights.rank == 0:
            yield weights.announcement(version, self.name)

    def connect(self, where: Rendezvous, device: torch.device) -> None:
        """Blocks until all have joined."""
        from rlpost.rollout.vllm.broadcast import Broadcast  # imports vllm: seconds

        self.close()
        self._broadcast = Broadcast(where, device)

    def send(self, weights: WeightSource) -> None:
        """Rank 0 broadcasts while the others help to gather."""
        if weights.rank == 0:
            self._met().send(weights.full())
        else:
            for _ in weights.full():
                pass

    def tensors(self, update: WeightUpdate) -> Iterator[tuple[str, torch.Tensor]]:
        """The weights as they come in."""
        return self._met().receive(update)

    def _met(self) -> Broadcast:
        if self._broadcast is None:
            raise RuntimeError("weights by broadcast, before its ends have met: connect comes first")
        return self._broadcast

    def close(self) -> None:
        """Leave the broadcast."""
        if self._broadcast is not None:
            self._broadcast.close()
        self._broadcast = None
