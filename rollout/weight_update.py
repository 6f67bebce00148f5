"""The wire record of one publication of weights. Built by the roof, carried by Ray, read by an engine's receiver.

Left out: how the bytes travel (object store, CUDA IPC, NCCL are kinds of ``payload``) and when (the controller's).
"""

from __future__ import annotations

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
            ``shapes``) or ``"ipc"`` (``payload`` is a list of ``{gpu_uuid: reduce_tensor(p)[1]}``).
        payload: see ``transport``; one entry a name.
    """

    version: int
    names: list[str] = field(default_factory=list)
    dtypes: list[str] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    transport: str = "object_store"
    payload: list[Any] = field(default_factory=list)
