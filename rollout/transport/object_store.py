"""Weights as NumPy arrays in Ray's object store: works everywhere, over any number of ranks, engines and nodes.

bfloat16, which NumPy does not have, travels as int16 of the same bits. Left out: an engine's own process, which the
arrays reach through shared memory (vllm/channel.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rlpost.rollout.transport.base import Transport
from rlpost.rollout.transport.ends import WeightSource
from rlpost.rollout.weight_update import WeightUpdate


class ObjectStore(Transport):
    """The payload is an array a name, shaped as announced."""

    description = "through Ray's object store"
    automatic = True

    def parts(self, weights: WeightSource, version: int) -> Iterator[WeightUpdate]:
        """Every so many-th layer, so that no rank ever holds the whole model."""
        return weights.shares(version, self.name, as_array)

    def tensors(self, update: WeightUpdate) -> Iterator[tuple[str, torch.Tensor]]:
        """The arrays where they are."""
        for name, dtype, sent in zip(update.names, update.dtypes, update.payload, strict=True):
            yield name, as_tensor(sent, dtype)


def as_array(weight: torch.Tensor) -> NDArray[Any]:
    """A NumPy array of the weight's shape, which may share its memory; bfloat16 as int16 of the same bits."""
    host = weight.cpu()
    array: NDArray[Any] = (host.view(torch.int16) if host.dtype is torch.bfloat16 else host).numpy()
    return array


def as_tensor(array: NDArray[Any], dtype_name: str) -> torch.Tensor:
    """``array`` as a CPU tensor of ``dtype_name`` that shares its memory; bfloat16 travels as int16.

    The array may be read-only memory of the object store; the tensor must then only be read.

    Raises:
        ValueError: elements of another size.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        tensor = torch.from_numpy(np.ascontiguousarray(array))
    dtype = getattr(torch, dtype_name)
    if tensor.dtype == dtype:
        return tensor
    if tensor.element_size() != dtype.itemsize:
        raise ValueError(f"an array of {array.dtype} cannot be {dtype_name}")
    return tensor.view(dtype)
