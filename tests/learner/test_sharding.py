"""FSDP2 over 2, 3 and 4 gloo processes gives what one process gives, and each reads what another number wrote."""

from __future__ import annotations

import pickle
import time
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
def results(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    """Results of all cases by (case, number of ranks), from one spawn of four processes."""
    folder = tmp_path_factory.mktemp("sharded")
    folders = (model_folder, tiny_folder(folder / "untied", tied=False))
    context = torch.multiprocessing.spawn(sharded_run.run, (folders, folder / "all"), nprocs=4, join=False)
    ends = time.monotonic() + 420
    while not context.join(timeout=1.0):
        assert time.monotonic() < ends, "the ranks did not finish within seven minutes"
    found: dict[Any, Any] = pickle.loads((folder / "all").read_bytes())
    return found


PARTED = [(c, w) for c in sharded_run.CASES for w in sharded_run.CASES[c].get("worlds", (1, 2)) if w > 1]


# A shard is a matrix of its own to apollo; in bf16 another order of sums is seen, and more of it on more ranks.
@pytest.mark.parametrize(("case", "world"), [(c, w) for c, w in PARTED if c != "apollo" and (c, w) != ("bf16", 4)])
def test_ranks_do_what_one_does(case: str, world: int, results: dict[Any, Any]) -> None:
    one, parted = results[case, 1], results[case, world]
    tolerance = 1e-5 if case != "bf16" else 2e-2
    for own, other in zip(one["metrics"], parted["metrics"], strict=True):
        assert own.keys() == other.keys()
        for name, value in own.items():
            assert other[name] == pytest.approx(value, rel=tolerance, abs=tolerance), name
    np.testing.assert_allclose(parted["old"], one["old"], rtol=0, atol=5 * tolerance)
    np.testing.assert_allclose(parted["scores"], one["scores"], rtol=0, atol=10 * tolerance)
    if case == "gradient":
        assert max(np.abs(change).max() for change in one["change"].values()) > 0.1
    for name, change in one["change"].items():
        # AdamW divides by the root of the second moment: where a gradient is nearly 0, rounding decides its sign. That
        # of a key's bias is nothing else: softmax does not see what all keys have in common.
        close = np.abs(parted["change"][name] - change) < tolerance
        assert close.all() or case != "gradient", name  # plain descent at rate 1: the change is the gradient
        assert close.mean() > (0.9 if case == "bf16" or name.endswith("k_proj.bias") else 0.999), name


@pytest.mark.parametrize(("case", "world"), [(c, 1) for c in sharded_run.CASES] + PARTED)
def test_a_checkpoint_resumes_exactly(case: str, world: int, results: dict[Any, Any]) -> None:
    assert results[case, world]["resumed"] == 0.0
    counts, same = results[case, world]["exported"]
    assert same
    assert len(counts) == world
    # A learner with adapters publishes their factors: two for each of 7 projections of 2 layers.
    total = 28 if case == "adapters" else 27 if case.startswith("untied") else 26
    assert sum(counts) == total
    assert world == 1 or max(counts) < total  # nobody publishes, or gathers, the whole model


def test_every_number_of_ranks_reads_what_every_other_wrote(results: dict[Any, Any]) -> None:
    found = {key[1:]: equal for key, equal in results.items() if key[0] == "equal"}
    assert len(found) == 4 * 9
    assert [key for key, equal in found.items() if not equal] == []


def test_lisa_draws_the_same_layers_on_all_ranks(results: dict[Any, Any]) -> None:
    drawn = [results["lisa", 1]["layers"][step][0] for step in range(2)]
    for world in sharded_run.EVERY:
        assert results["lisa", world]["layers"] == [[layers] * world for layers in drawn]
    moved = {name.split(".")[2] for name, by in results["lisa", 4]["change"].items() if "layers" in name and by.any()}
    assert moved == {str(layer) for layers in drawn for layer in layers}


def test_ranks_that_do_not_meet_are_named() -> None:
    with pytest.raises(LearnerError, match="need a rendezvous"):
        Ranks(0, 2, torch.device("cpu"), "", 5.0, sharded=True)
    with pytest.raises(LearnerError, match=r"rank 1 did not meet the other 1 at .* within 1 s"):
        Ranks(1, 2, torch.device("cpu"), "tcp://127.0.0.1:9", 1.0, sharded=True)
