"""The base class of weight transports: every question that a part of the framework asks of the way weights travel.

A further transport is one class derived from this, named ``module:Class`` in ``sync.transport``. Left out: the
transports themselves (a file each), and which of them a run takes (registry.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from rlpost.rollout.engine import EngineError
from rlpost.rollout.transport.ends import Bundle, Rendezvous, WeightSource
from rlpost.rollout.weight_update import WeightUpdate


class Transport:
    """A way for weights to travel. Each process that takes part makes an object of its own, which may keep what its
    half needs from one publication to the next: the driver, each learner rank, each process of an engine.

    Args:
        name: as in the recipe; every record that travels this way carries it.

    Attributes:
        description: what ``rlpost explain`` says of it.
        automatic: ``sync.transport: auto`` may take it, where ``refusal`` is silent.
        connects: the ends meet before the first publication (``connect``), and the learner sends (``send``) while the
            engines take the record; otherwise the record brings everything. Only vLLM's engines can be met.
    """

    description = ""
    automatic = False
    connects = False

    def __init__(self, name: str) -> None:
        self.name = name

    def refusal(self, bundles: Sequence[Bundle]) -> str:
        """In the driver: why weights cannot travel this way between actors placed so (on a CPU there are no bundles),
        as the rest of a sentence that begins with the name; empty where they can."""
        return ""

    def parts(self, weights: WeightSource, version: int) -> Iterator[WeightUpdate]:
        """On each learner rank, a collective: the records of a publication, sent through Ray's object store as they
        come. They may share memory with the live weights and are read before the next learning step."""
        raise NotImplementedError

    def connect(self, where: Rendezvous, device: torch.device) -> None:
        """On learner rank 0 and in each process of an engine: meet all others; again where one of them was replaced."""
        raise NotImplementedError

    def send(self, weights: WeightSource) -> None:
        """On each learner rank, a collective: what ``parts`` announced, while the engines read ``tensors``."""
        raise NotImplementedError

    def check(self, update: WeightUpdate) -> None:
        """Raises EngineError: the engine waits for updates of another transport, which it could not read."""
        if update.transport != self.name:
            raise EngineError(
                f"weights of version {update.version} refused: they came by '{update.transport}', this engine was "
                f"started for '{self.name}'"
            )

    def tensors(self, update: WeightUpdate) -> Iterator[tuple[str, torch.Tensor]]:
        """In each process of an engine: names and tensors of ``update``, in its order. A tensor may share memory with
        what was sent: read it, and drop it before the sender goes on."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave the others; nothing by default."""
