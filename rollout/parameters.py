"""Which parameters a model has, the check of an update against them before any weight is touched, and its tensors.

Engines load whatever they are given: a parameter that is missing keeps its old value and nothing complains. So names
and shapes are compared with those of the Hugging Face model first. Left out: values (the probe after each publication
compares those) and vLLM's own fused names, which its loaders derive from these.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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

    def check(self, update: WeightUpdate) -> None:
        """Refuse an update that does not carry exactly this model's parameters.

        Raises:
            EngineError: naming the version and the first parameter that is wrong.
        """
        what = f"weights of version {update.version} refused, nothing was changed:"
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


def as_tensor(array: NDArray[Any], dtype_name: str) -> torch.Tensor:
    """``array`` as a CPU tensor of ``dtype_name`` that shares its memory; bfloat16 travels as int16.

    The array may be read-only memory of the object store; the tensor must then only be read.
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


def tensors_of(update: WeightUpdate) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors of an update that came as arrays or by CUDA IPC, from a process on the same GPU.

    A tensor shares memory with what was sent: read it, and drop it before the sender goes on.
    """
    buffer, place = torch.empty(0), 0
    fields = zip(update.names, update.dtypes, update.shapes, update.payload, strict=True)
    for name, dtype_name, shape, sent in fields:
        if isinstance(sent, np.ndarray):
            yield name, as_tensor(sent, dtype_name)
            continue
        if sent is not None:
            buffer, place = _opened(sent), 0
        size = math.prod(shape) * BYTES[dtype_name]
        yield name, buffer[place : place + size].view(getattr(torch, dtype_name)).view(shape)
        place += size


def _opened(handles: dict[str, tuple[Any, ...]]) -> torch.Tensor:
    """The buffer behind a CUDA IPC handle."""
    from torch.multiprocessing.reductions import rebuild_cuda_tensor

    handle = list(handles[str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)])
    handle[6] = torch.cuda.current_device()  # the sender may count its GPUs differently
    buffer: torch.Tensor = rebuild_cuda_tensor(*handle)
    return buffer
