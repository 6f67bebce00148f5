"""What a vLLM model holds after its loaders ran, in the names and places of the Hugging Face tensors it was handed.

Loaders fuse, split, transpose and pad, each family in its own way, and all of them end in copies into parameters. So
the copies are watched while they run: where a copy's source lies inside a tensor that was handed in says which part of
that tensor the destination is. Left out: what vLLM does to a layer afterwards for a kernel that wants another form (on
a CPU it packs weights, which cannot be read back); the log-probabilities of the probe are the check of that.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rlpost.rollout.digest import Held, Unread, piece_of, read, row_major

_COPY = torch.ops.aten.copy_.default
_PASSED_ON = (torch.ops.aten._to_copy.default, torch.ops.aten.clone.default)
"""Copies that a loader makes on the way: to another device or type, or to have a tensor contiguous."""


class _Source:
    """A tensor that was handed to the loaders, or a contiguous copy of a part of one that a loader made."""

    def __init__(self, name: str, shape: torch.Size, dtype: torch.dtype, first: int, held: Tensor) -> None:
        self.name, self.shape, self.dtype, self.first, self.held = name, shape, dtype, first, held
        self.start = held.data_ptr()
        self.end = self.start + held.nbytes


class ReadBack(TorchDispatchMode):
    """Watches loaders; afterwards ``pieces`` says what the model holds.

    Args:
        at_end: destinations are the model's own memory for good, and are read when ``pieces`` is asked for; else each
            is read right after its copy.
    """

    def __init__(self, at_end: bool) -> None:
        super().__init__()
        self._at_end = at_end
        self._sources: list[_Source] = []
        self._starts: list[int] = []
        self._copies: list[tuple[_Source, int, tuple[int, ...], Tensor]] = []
        self._found: list[tuple[str, Unread]] = []

    def handing(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """The same names and tensors, each known from when it is handed on."""
        for name, tensor in weights:
            contiguous = tensor.contiguous()
            self._add(_Source(name, tensor.shape, tensor.dtype, 0, contiguous))
            yield name, contiguous

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is _COPY:
            self._copied(args[0], args[1])
        elif func in _PASSED_ON and isinstance(args[0], Tensor) and args[0].is_contiguous() and out.is_contiguous():
            source = self._source_of(args[0])
            if source is not None:
                first = source.first + (args[0].data_ptr() - source.start) // args[0].element_size()
                self._add(_Source(source.name, source.shape, source.dtype, first, out))
        return out

    def pieces(self) -> Held:
        """By name, every part of a tensor that the model has; names of which it has none are absent."""
        for copy in self._copies:
            self._read(*copy)
        self._copies.clear()
        pieces: Held = {}
        for (name, _), piece in zip(self._found, read([one for _, one in self._found]), strict=True):
            pieces.setdefault(name, []).append(piece)
        return pieces

    def _add(self, source: _Source) -> None:
        if source.held.numel():
            place = bisect.bisect(self._starts, source.start)
            self._starts.insert(place, source.start)
            self._sources.insert(place, source)

    def _source_of(self, tensor: Tensor) -> _Source | None:
        if tensor.device.type == "meta" or not tensor.numel():
            return None
        place = bisect.bisect(self._starts, tensor.data_ptr()) - 1
        found = self._sources[place] if place >= 0 else None
        inside = found is not None and tensor.data_ptr() < found.end and tensor.dtype == found.held.dtype
        return found if inside else None

    def _copied(self, held: Tensor, given: Tensor) -> None:
        source = self._source_of(given) if held.device.type != "meta" else None
        if source is None:
            return
        first = source.first + (given.data_ptr() - source.start) // given.element_size()
        given = given.expand(held.shape)
        if 0 in given.stride() and any(s > 1 and step == 0 for s, step in zip(held.shape, given.stride(), strict=True)):
            return  # one element to many places: no part of the tensor
        copy = (source, first, _usual(given.stride(), held.shape), held)
        if self._at_end:
            self._copies.append(copy)
        else:
            self._read(*copy)

    def _read(self, source: _Source, first: int, strides: tuple[int, ...], held: Tensor) -> None:
        with torch._C._DisableTorchDispatch():
            whole = tuple(source.shape)
            if tuple(held.shape) == whole and strides == _usual(row_major(whole), whole):
                strides = row_major(whole)
            # A layer may keep a weight in a wider type than it travels in, and loses nothing by it.
            piece = piece_of(held.to(source.dtype), whole, first, strides)
        self._found.append((source.name, piece))


def _usual(strides: Sequence[int], sizes: Sequence[int]) -> tuple[int, ...]:
    """The strides, with 0 along axes of one element, where any number would do."""
    return tuple(step if size != 1 else 0 for step, size in zip(strides, sizes, strict=True))
