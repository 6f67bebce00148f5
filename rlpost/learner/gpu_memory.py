"""How torch's allocator holds a learner's GPU memory.

Packs are of many sizes, and blocks of fixed segments then fit none of the next: a learner was seen to hold 18 GiB of
which it never used more than 12. Segments that grow avoid that, but cannot be shared with every process, so what is
shared is allocated without. Left out: the engines' memory, which is vLLM's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

_CHOSEN_BY = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
_growing = False  # whether segments grow because this file said so


def growing_segments() -> None:
    """Let segments grow in this process from here on, unless its environment says how memory is allocated."""
    if not any(os.environ.get(name) for name in _CHOSEN_BY):
        _grow(True)


@contextlib.contextmanager
def whole_segments() -> Iterator[None]:
    """What is allocated within can be shared with any process by CUDA IPC."""
    grew = _growing
    _grow(False)
    try:
        yield
    finally:
        _grow(grew)


def _grow(grow: bool) -> None:
    global _growing
    if grow != _growing:
        torch._C._accelerator_setAllocatorSettings(f"expandable_segments:{grow}")
        _growing = grow
