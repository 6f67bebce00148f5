"""A weight transport of a user's own: a file a parameter in a folder that learner and engines see.

Left out: removing the files of old versions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from rlpost.rollout.transport.base import Transport
from rlpost.rollout.transport.ends import Bundle, WeightSource
from rlpost.rollout.weight_update import WeightUpdate


class ByFiles(Transport):
    """The payload is the path of a file a name; fp32 alone."""

    description = "by files"

    def refusal(self, bundles: Sequence[Bundle]) -> str:
        """One node: its folder is its own."""
        return "writes to a folder of one node, and there are several" if len({one.node for one in bundles}) > 1 else ""

    def parts(self, weights: WeightSource, version: int) -> Iterator[WeightUpdate]:
        """Written one by one."""
        folder = Path(tempfile.mkdtemp(prefix="weights-"))

        def write(weight: torch.Tensor) -> str:
            path = folder / f"{len(list(folder.iterdir()))}.npy"
            np.save(path, weight.cpu().numpy())
            return str(path)

        return weights.shares(version, self.name, write)

    def tensors(self, update: WeightUpdate) -> Iterator[tuple[str, torch.Tensor]]:
        """Read one by one."""
        for name, path in zip(update.names, update.payload, strict=True):
            yield name, torch.from_numpy(np.load(path))
