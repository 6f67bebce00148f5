"""The weights of a transformers model by the names and in the shapes of its checkpoint, which is what engines load.

transformers holds some weights in another form than a checkpoint: all experts of a layer in one tensor, or under
another name (Mixtral's). It has the way back for saving; here the same goes weight by weight, so that no second copy of
the model is ever made. Learner (what is sent) and engine (what is expected) both read it here. Left out: a prefix that
a checkpoint lacks and transformers adds; engines know the full names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, revert_weight_conversion


def model_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and every buffer of floating-point numbers that belongs into a checkpoint, live, tied ones
    once."""
    seen: set[int] = set()
    for name, weight in model.state_dict(keep_vars=True).items():
        if isinstance(weight, Tensor) and weight.is_floating_point() and id(weight) not in seen:
            seen.add(id(weight))
            yield name, weight


def checkpoint_weights(model: Any, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """The same weights as a checkpoint has them.

    Args:
        model: the transformers model they are of.
        weights: by their names in memory, layer after layer.
    """
    if not _converts(model):
        yield from weights
        return
    for _, layer in groupby(weights, key=lambda named: layer_of(named[0])):
        for name, weight in revert_weight_conversion(model, dict(layer)).items():
            yield name, weight.contiguous()


def layer_of(name: str) -> str:
    """The beginning of a weight's name that it shares with its layer: up to the first number; itself without one."""
    found = re.match(r".*?\.\d+\.", name)
    return found[0] if found else name


def _converts(model: Any) -> bool:
    """Whether checkpoint and memory differ for this model; asked of transformers once, on weights without values."""
    known = getattr(model, "_rlpost_converts", None)
    if known is None:
        conversions = get_model_conversion_mapping(model, add_legacy=False)
        kept = [one for one in conversions if type(one).__name__ != "PrefixChange"]
        model._weight_conversions = kept or None
        known = False
        if kept:
            names = {name.replace(".base_layer.", "."): one.shape for name, one in model_weights(model)}
            hollow = {n: torch.empty(shape, device="meta") for n, shape in names.items() if ".lora_" not in n}
            converters = any(isinstance(one, WeightConverter) for one in kept)  # may keep a name and change its values
            known = converters or set(revert_weight_conversion(model, dict(hollow))) != set(hollow)
        model._rlpost_converts = known
    return bool(known)
