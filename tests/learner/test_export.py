"""What engines are sent: every weight once, in the compute dtype, whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from rlpost.learner.config import OptimizerConfig
from rlpost.learner.learner import Learner
from tests.learner.helpers import Clipped, batch, setup


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_payload_is_the_model_bit_for_bit(dtype: str, model_folder: Path) -> None:
    learner = Learner(setup(model_folder, dtype=dtype), algorithm=Clipped())
    learner.score([[1, 2, 3]])
    update = learner.weights(7)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    assert update.version == 7
    assert update.transport == "object_store"
    assert update.names == [name for name, _ in model.named_parameters()]  # tied: the output head is not sent twice
    for (name, weight), kind, shape, array in zip(
        model.named_parameters(), update.dtypes, update.shapes, update.payload, strict=True
    ):
        assert shape == tuple(weight.shape) == array.shape
        if dtype == "fp32":
            assert (kind, array.dtype) == ("float32", np.float32)
            np.testing.assert_array_equal(array, weight.detach().numpy(), err_msg=name)
        else:
            assert (kind, array.dtype) == ("bfloat16", np.int16)
            assert torch.equal(torch.from_numpy(array).view(torch.bfloat16), weight.detach().bfloat16())
    learner.close()


def test_learning_moves_what_is_published_by_less_than_the_masters(model_folder: Path) -> None:
    learner = Learner(setup(model_folder, dtype="bf16", optimizer=OptimizerConfig(lr=1e-6)), algorithm=Clipped())
    published, masters = (_flat(learner, kind) for kind in ("published", "masters"))
    learner.learn(batch(8))
    moved = (_flat(learner, "masters") != masters).mean()
    visible = (_flat(learner, "published") != published).mean()
    assert moved > 0.5  # fp32 masters take a step that most bf16 weights are too coarse to show
    assert visible < 0.1
    learner.close()


def _flat(learner: Learner, kind: str) -> np.ndarray:
    if kind == "published":
        return np.concatenate([array.ravel().copy() for array in learner.weights(0).payload])
    return np.concatenate([weight.ravel().numpy().copy() for _, weight in learner.policy.full_weights(torch.float32)])
