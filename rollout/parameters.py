"""Which parameters a model has, and the check of an update against them before any weight is touched.

Engines load whatever they are given: a parameter that is missing keeps its old value and nothing complains. So names
and shapes are compared with those of the Hugging Face model first. Left out: values (the probe after each publication
compares those) and vLLM's own fused names, which its loaders derive from these.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from rlpost.rollout.engine import EngineError
from rlpost.rollout.weight_update import WeightUpdate

Shape = tuple[int, ...]
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Dtypes that weights may travel in, and their size."""


@dataclass(frozen=True, slots=True)
class ModelParameters:
    """Names and shapes of a Hugging Face model's parameters.

    Attributes:
        required: every parameter once.
        optional: further names of the same parameters (a tied output head), which an update may but need not have.
    """

    required: dict[str, Shape]
    optional: dict[str, Shape]

    @classmethod
    def of(cls, model: str, trust_remote_code: bool = False) -> ModelParameters:
        """Read them from the configuration in ``model`` (a folder or a hub name); no weights are loaded.

        Raises:
            EngineError: transformers cannot build the model from its configuration.
        """
        from transformers import AutoConfig

        from rlpost.rollout.hf_model import auto_class

        try:
            config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
            made = auto_class(model, trust_remote_code)
            with torch.device("meta"):
                skeleton = made.from_config(config, trust_remote_code=trust_remote_code)
        except Exception as error:
            raise EngineError(f"cannot read the parameter names of model '{model}': {error}") from error
        return cls.of_module(skeleton)

    @classmethod
    def of_module(cls, model: nn.Module) -> ModelParameters:
        """Those of a transformers model in memory, buffers that a checkpoint has among them."""
        from rlpost.rollout.hf_names import checkpoint_weights, model_weights

        live = dict(model_weights(model))
        hollow = {name: torch.empty(weight.shape, device="meta") for name, weight in live.items()}
        required = {name: tuple(weight.shape) for name, weight in checkpoint_weights(model, hollow.items())}
        every = {name: tuple(parameter.shape) for name, parameter in model.named_parameters(remove_duplicate=False)}
        tied = {name: shape for name, shape in every.items() if name not in live}
        return cls(required, tied)

    def adapters(self, rank: int) -> ModelParameters:
        """Those that adapters of this rank may have, by their names in a PEFT checkpoint; none is required."""
        found: dict[str, Shape] = {}
        for name, shape in self.required.items():
            if name.endswith(".weight") and len(shape) == 2:
                layer = f"base_model.model.{name.removesuffix('.weight')}"
                found[f"{layer}.lora_A.weight"] = (rank, shape[1])
                found[f"{layer}.lora_B.weight"] = (shape[0], rank)
        return ModelParameters({}, found)

    def check(self, update: WeightUpdate, rank: int = 0) -> None:
        """Refuse an update that does not carry exactly this model's parameters, or, where ``rank`` is not 0, factors of
        adapters of that rank.

        Raises:
            EngineError: naming the version and the first parameter that is wrong.
        """
        what = f"weights of version {update.version} refused, nothing was changed:"
        if update.rank != rank:
            kinds = [f"adapters of rank {one}" if one else "whole models" for one in (update.rank, rank)]
            raise EngineError(f"{what} they are {kinds[0]}, and this engine was started for {kinds[1]}")
        (self.adapters(rank) if rank else self)._check_each(update, what)

    def _check_each(self, update: WeightUpdate, what: str) -> None:
        counts = {len(update.names), len(update.dtypes), len(update.shapes), len(update.payload)}
        if not update.names or len(counts) > 1:
            raise EngineError(
                f"{what} {len(update.names)} names, {len(update.dtypes)} dtypes, {len(update.shapes)} shapes and "
                f"{len(update.payload)} tensors; there must be one of each a parameter"
            )
        for name, dtype, shape, payload in zip(update.names, update.dtypes, update.shapes, update.payload, strict=True):
            self._check_one(what, name, tuple(shape), payload)
            size = getattr(payload, "itemsize", BYTES.get(dtype))  # CUDA IPC handles have none
            if dtype not in BYTES or size != BYTES[dtype]:
                raise EngineError(f"{what} parameter '{name}' is announced as {dtype} and has {size} bytes an element")
        given = set(update.names)
        if len(given) < len(update.names):
            twice = next(name for i, name in enumerate(update.names) if name in update.names[:i])
            raise EngineError(f"{what} parameter '{twice}' comes twice")
        missing = [name for name in self.required if name not in given]
        if missing:
            raise EngineError(f"{what} parameter '{missing[0]}' is missing ({len(missing)} in all)")

    def _check_one(self, what: str, name: str, shape: Shape, payload: object) -> None:
        expected = self.required.get(name, self.optional.get(name))
        if expected is None:
            raise EngineError(f"{what} the model has no parameter '{name}'")
        if shape != expected:
            raise EngineError(f"{what} parameter '{name}' has shape {shape}, the model's is {expected}")
        sent = getattr(payload, "shape", None)
        if sent is not None and tuple(sent) != expected:
            raise EngineError(f"{what} the array of parameter '{name}' has shape {tuple(sent)}, announced was {shape}")
