"""The wire record of one publication of weights. Built by the roof, carried by Ray, read by an engine's receiver.

Left out: how the bytes travel (object store, CUDA IPC, NCCL are kinds of ``payload``) and when (the controller's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class WeightUpdate:
    """One version of the weights.

    Attributes:
        version: policy version these weights are.
        names: parameter names in the Hugging Face model.
        dtypes: torch dtype names, e.g. ``"bfloat16"``, one a name.
        shapes: one a name.
        transport: ``"object_store"`` (``payload`` is a list of NumPy arrays, bfloat16 as int16 views, shaped like
            ``shapes``), ``"ipc"`` (``{gpu_uuid: reduce_tensor(buffer)[1]}`` of a buffer of bytes at the parameter that
            it begins with, None at those that follow in it without a gap) or ``"nccl"`` (a list of None: the learner
            broadcasts the weights in this order while the engine takes the record).
        payload: see ``transport``; one entry a name.
    """

    version: int
    names: list[str] = field(default_factory=list)
    dtypes: list[str] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    transport: str = "object_store"
    payload: list[Any] = field(default_factory=list)

    @classmethod
    def join(cls, parts: Sequence[WeightUpdate]) -> WeightUpdate:
        """One record of several that each carry some of the parameters of the same version."""
        if len(parts) == 1:
            return parts[0]
        whole = cls(parts[0].version, transport=parts[0].transport)
        for part in parts:
            whole.names += part.names
            whole.dtypes += part.dtypes
            whole.shapes += part.shapes
            whole.payload += part.payload
        return whole
