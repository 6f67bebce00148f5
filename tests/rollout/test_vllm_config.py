"""The engine's keys, its environment, and the check of updates; none of it needs vllm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from rlpost.rollout.engine import EngineError
from rlpost.rollout.parameters import ModelParameters
from rlpost.rollout.transport.registry import find
from rlpost.rollout.vllm.config import VllmConfig, engine_environment, intel_openmp
from rlpost.rollout.weight_update import WeightUpdate

PARAMETERS = ModelParameters(required={"a.weight": (2, 3), "b.bias": (4,)}, optional={"head.weight": (2, 3)})


def update(**changes: object) -> WeightUpdate:
    fields: dict[str, object] = {
        "version": 7,
        "names": ["a.weight", "b.bias"],
        "dtypes": ["float32", "bfloat16"],
        "shapes": [(2, 3), (4,)],
        "payload": [np.zeros((2, 3), np.float32), np.zeros(4, np.int16)],
    }
    return WeightUpdate(**{**fields, **changes})  # type: ignore[arg-type]


def test_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="gpu_memory_utilisation"):
        VllmConfig(gpu_memory_utilisation=0.5)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("dtype", "device", "expected"), [("auto", "cpu", "fp32"), ("auto", "cuda", "bf16"), ("bf16", "cpu", "bf16")]
)
def test_dtype_follows_the_device(dtype: str, device: str, expected: str) -> None:
    assert VllmConfig(dtype=dtype).compute_dtype(device) == expected  # type: ignore[arg-type]


def test_environment_of_a_cpu_engine() -> None:
    environment = engine_environment(VllmConfig(threads=3), "cpu")
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert environment["TORCH_COMPILE_DISABLE"] == "1"
    assert Path(environment["LD_PRELOAD"]) == intel_openmp()
    assert all(isinstance(value, str) for value in environment.values())


def test_environment_of_a_gpu_engine_compiles_and_preloads_nothing() -> None:
    environment = engine_environment(VllmConfig(), "cuda")
    assert environment["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert not {"LD_PRELOAD", "TORCH_COMPILE_DISABLE"} & set(environment)


@pytest.mark.parametrize(
    ("keys", "device", "first"),
    [({}, "cuda", False), ({"enforce_eager": True}, "cuda", True), ({"sleep": True}, "cuda", True), ({}, "cpu", True)],
)
def test_vllm_chooses_its_model_runner_only_where_that_was_tried(
    keys: dict[str, bool], device: str, first: bool
) -> None:
    environment = engine_environment(VllmConfig(**keys), device)
    assert (environment.get("VLLM_USE_V2_MODEL_RUNNER") == "0") is first


def test_config_and_parameters_do_not_import_vllm() -> None:
    code = "import sys, rlpost.rollout.vllm.config, rlpost.rollout.parameters; sys.exit('vllm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_a_fitting_update_passes() -> None:
    PARAMETERS.check(update())
    PARAMETERS.check(
        update(
            names=["b.bias", "head.weight", "a.weight"],
            dtypes=["float32"] * 3,
            shapes=[(4,), (2, 3), (2, 3)],
            payload=[np.zeros(4, np.float32), np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)],
        )
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"names": [], "dtypes": [], "shapes": [], "payload": []}, "0 names"),
        ({"payload": []}, "0 tensors"),
        ({"names": ["a.weight", "b.biass"]}, "no parameter 'b.biass'"),
        ({"names": ["a.weight", "a.weight"], "shapes": [(2, 3), (2, 3)], "dtypes": ["float32"] * 2}
         | {"payload": [np.zeros((2, 3), np.float32)] * 2}, "'a.weight' comes twice"),
        ({"names": ["a.weight"], "shapes": [(2, 3)], "dtypes": ["float32"]}
         | {"payload": [np.zeros((2, 3), np.float32)]}, "'b.bias' is missing"),
        ({"shapes": [(3, 2), (4,)]}, r"'a.weight' has shape \(3, 2\), the model's is \(2, 3\)"),
        ({"payload": [np.zeros((6,), np.float32), np.zeros(4, np.int16)]}, r"array of parameter 'a.weight'"),
        ({"dtypes": ["float32", "float32"]}, "'b.bias' is announced as float32 and has 2 bytes"),
        ({"dtypes": ["float32", "int16"]}, "'b.bias' is announced as int16"),
    ],
)  # fmt: skip
def test_an_update_that_does_not_fit_is_refused_with_the_parameter(changes: dict[str, object], words: str) -> None:
    with pytest.raises(EngineError, match=words) as caught:
        PARAMETERS.check(update(**changes))
    assert "version 7" in str(caught.value)


def test_parameters_of_a_tied_model(vllm_folder: Path) -> None:
    parameters = ModelParameters.of(str(vllm_folder))
    assert parameters.required["model.embed_tokens.weight"] == (160, 128)
    assert parameters.optional == {"lm_head.weight": (160, 128)}
    assert len(parameters.required) == 2 + 2 * 12


def test_a_buffer_is_read_as_the_parameters_that_lie_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two buffers of two and of one parameter, as several parts of an update that was joined would have."""
    sent = [torch.randn(2, 3), torch.randn(4).bfloat16(), torch.randn(3, 1).bfloat16()]
    flat = [weight.flatten().view(torch.uint8) for weight in sent]
    buffers = {"first": torch.cat(flat[:2]), "second": flat[2]}
    monkeypatch.setattr("rlpost.rollout.transport.ipc.opened", lambda handles: buffers[handles["GPU"]])
    shapes, dtypes = [(2, 3), (4,), (3, 1)], ["float32", "bfloat16", "bfloat16"]
    payload = [{"GPU": "first"}, None, {"GPU": "second"}]
    read = dict(find("ipc").tensors(WeightUpdate(1, ["a", "b", "c"], dtypes, shapes, "ipc", payload)))
    assert list(read) == ["a", "b", "c"]
    for weight, expected in zip(read.values(), sent, strict=True):
        assert weight.dtype == expected.dtype
        assert torch.equal(weight, expected)


def test_parameters_of_no_model(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot read the parameter names"):
        ModelParameters.of(str(tmp_path))
