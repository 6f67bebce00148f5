"""The fused kernels against plain torch. Without a GPU they run in Triton's interpreter, where it is asked for:

    TRITON_INTERPRET=1 pytest tests/learner/test_logprob_kernels.py

Left out: their speed (benchmarks/logprobs.py).
"""

from __future__ import annotations

import os

import pytest
import torch

from rlpost.learner import logprob_kernels
from rlpost.learner.logprobs import _gradient, _statistics

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"), reason="no GPU and no interpreter"
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def tile(rows: int, columns: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(columns)
    logits = scale * torch.randn(rows, columns, generator=generator)
    return logits.to(DEVICE), torch.randint(columns, (rows,), generator=generator).to(DEVICE)


def statistics_of(run, logits: torch.Tensor, targets: torch.Tensor, temperature: float) -> list[torch.Tensor]:  # type: ignore[no-untyped-def]
    found = [torch.empty(len(logits), dtype=logits.dtype, device=DEVICE) for _ in range(3)]
    run(logits.clone(), targets, temperature, *found)
    return found


@pytest.mark.parametrize("columns", [5, 4096, 9000])
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_statistics(columns: int, scale: float, temperature: float) -> None:
    logits, targets = tile(3, columns, scale)
    own = statistics_of(logprob_kernels.statistics, logits, targets, temperature)
    exact = statistics_of(_statistics, logits.double(), targets, temperature)
    for one, other in zip(own, exact, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("columns", [5, 9000])
@pytest.mark.parametrize("gradients", ["both", "logprob", "entropy"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
def test_gradient(columns: int, gradients: str, dtype: torch.dtype, tolerance: float) -> None:
    logits, targets = tile(4, columns, 2.0)
    normaliser, _, entropy = statistics_of(_statistics, logits.double(), targets, 0.7)
    slopes = torch.randn(2, 4, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    by = [None if gradients == "entropy" else slopes[0], None if gradients == "logprob" else slopes[1]]
    doubles = [None if one is None else one.double() for one in by]
    own = logprob_kernels.gradient(logits, targets, 0.7, normaliser.float(), entropy.float(), *by, dtype)
    exact = _gradient(logits.double(), targets, 0.7, normaliser, entropy, *doubles, torch.float64)
    assert own.dtype is dtype
    torch.testing.assert_close(own.double(), exact, rtol=tolerance, atol=tolerance)


def test_a_tile_without_rows() -> None:
    logits, targets = tile(0, 7, 1.0)
    assert statistics_of(logprob_kernels.statistics, logits, targets, 1.0)[0].shape == (0,)
