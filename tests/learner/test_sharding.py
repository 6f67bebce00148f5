"""FSDP2 over two gloo processes gives what one process gives."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlpost.learner.batch import LearnerError
from rlpost.learner.sharding import Ranks
from tests.learner import sharded_run
from tests.learner.helpers import tiny_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def both(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """Results of all cases with one rank (in this process) and with two (in processes of their own)."""
    folder = tmp_path_factory.mktemp("sharded")
    folders = (model_folder, tiny_folder(folder / "untied", tied=False))
    context = torch.multiprocessing.spawn(sharded_run.run, (2, folders, folder / "two"), nprocs=2, join=False)
    sharded_run.run(0, 1, folders, folder / "one")
    deadline = 300
    while not context.join(timeout=1.0):
        deadline -= 1
        assert deadline, "the two ranks did not finish within five minutes of the single one"
    return tuple(pickle.loads((folder / name).read_bytes()) for name in ("one", "two"))  # type: ignore[return-value]


@pytest.mark.parametrize("case", [case for case in sharded_run.CASES if case != "apollo"])  # a shard is a matrix there
def test_two_ranks_do_what_one_does(case: str, both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    one, two = (results[case] for results in both)
    tolerance = 1e-5 if case != "bf16" else 2e-2
    for own, other in zip(one["metrics"], two["metrics"], strict=True):
        assert own.keys() == other.keys()
        for name, value in own.items():
            assert other[name] == pytest.approx(value, rel=tolerance, abs=tolerance), name
    np.testing.assert_allclose(two["old"], one["old"], rtol=0, atol=5 * tolerance)
    np.testing.assert_allclose(two["scores"], one["scores"], rtol=0, atol=10 * tolerance)
    if case == "gradient":
        assert max(np.abs(change).max() for change in one["change"].values()) > 0.1
    for name, change in one["change"].items():
        # AdamW divides by the root of the second moment: where a gradient is nearly 0, rounding decides its sign. That
        # of a key's bias is nothing else: softmax does not see what all keys have in common.
        close = np.abs(two["change"][name] - change) < tolerance
        assert close.mean() > (0.9 if case == "bf16" or name.endswith("k_proj.bias") else 0.999), name


@pytest.mark.parametrize("case", sharded_run.CASES)
def test_a_checkpoint_of_two_ranks_resumes_exactly(case: str, both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    for results in both:
        assert results[case]["resumed"] == 0.0
        assert results[case]["exported"] == (27 if case.startswith("untied") else 26)


def test_ranks_that_do_not_meet_are_named() -> None:
    with pytest.raises(LearnerError, match="need a rendezvous"):
        Ranks(0, 2, torch.device("cpu"), "", 5.0, sharded=True)
    with pytest.raises(LearnerError, match=r"rank 1 did not meet the other 1 at .* within 1 s"):
        Ranks(1, 2, torch.device("cpu"), "tcp://127.0.0.1:9", 1.0, sharded=True)
