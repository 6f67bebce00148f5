"""The wire record of one publication of weights. Built by the learner, carried by Ray, read by an engine's receiver.

Left out: how the bytes travel (each transport has a ``payload`` of its own) and when (the controller's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

DEFAULT_TRANSPORT = "object_store"
"""The transport that works everywhere."""


@dataclass(frozen=True, slots=True)
class Adapters:
    """Low-rank adapters that an engine is to serve unmerged.

    Attributes:
        rank: of each.
        targets: ends of the names of the layers they may be on.
    """

    rank: int
    targets: tuple[str, ...]


@dataclass(slots=True)
class WeightUpdate:
    """One version of the weights.

    Attributes:
        version: policy version these weights are.
        names: parameter names in the Hugging Face model.
        dtypes: torch dtype names, e.g. ``"bfloat16"``, one a name.
        shapes: one a name.
        transport: the transport that reads ``payload``.
        payload: what each transport says in its own file; one entry a name. NumPy arrays in it cross processes through
            shared memory.
        rank: 0 where these are all parameters of the model; else they are the factors A (rank, in) and B (out, rank) of
            its adapters alone, by their names in a PEFT checkpoint, with the scale alpha / rank already in B.
    """

    version: int
    names: list[str] = field(default_factory=list)
    dtypes: list[str] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    transport: str = DEFAULT_TRANSPORT
    payload: list[Any] = field(default_factory=list)
    rank: int = 0

    @classmethod
    def join(cls, parts: Sequence[WeightUpdate]) -> WeightUpdate:
        """One record of several that each carry some of the parameters of the same version."""
        if len(parts) == 1:
            return parts[0]
        whole = cls(parts[0].version, transport=parts[0].transport, rank=parts[0].rank)
        for part in parts:
            whole.names += part.names
            whole.dtypes += part.dtypes
            whole.shapes += part.shapes
            whole.payload += part.payload
        return whole
