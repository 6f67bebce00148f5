"""Weight transports: which of them can be where, which one auto takes, and how a name becomes one.

Left out: weights that really travel (test_diffusion_engine.py, tests/runtime/test_transport.py,
tests/learner/test_cuda.py).
"""

from __future__ import annotations

import pytest
import torch

from rlpost.rollout.engine import EngineError
from rlpost.rollout.parameters import ModelParameters
from rlpost.rollout.transport.ends import Bundle
from rlpost.rollout.transport.registry import AUTO, TRANSPORTS, TransportError, choose, find
from rlpost.rollout.weight_update import WeightUpdate

BY_FILES = "tests.support.by_files:ByFiles"
CPU: tuple[Bundle, ...] = ()
ONE_GPU = (Bundle(0, 1, (0,), (0, 1)),)
APART = (Bundle(0, 1, (0,)), Bundle(0, 1, (), (0,)), Bundle(0, 2, (), (1,)))
CROWDED = (Bundle(0, 1, (0,)), Bundle(0, 1, (1,), (0,)), Bundle(0, 1, (), (1, 2)))
TWO_NODES = (Bundle(0, 1, (0,)), Bundle(1, 1, (), (0,)))


@pytest.mark.parametrize(
    ("bundles", "taken"),
    [(CPU, "object_store"), (ONE_GPU, "ipc"), (APART, "object_store"), (CROWDED, "object_store")],
)
def test_auto_takes_the_first_that_can_be(bundles: tuple[Bundle, ...], taken: str) -> None:
    assert choose(AUTO, bundles).name == taken


@pytest.mark.parametrize(
    ("name", "bundles", "said"),
    [
        ("object_store", CPU, ""),
        ("object_store", ONE_GPU, ""),
        ("object_store", TWO_NODES, ""),
        ("ipc", ONE_GPU, ""),
        ("ipc", CPU, "ipc passes weights within one GPU, and this run is on a CPU; set"),
        ("ipc", APART, "ipc passes weights within one GPU, and learner and rollout workers are on several here; set"),
        ("ipc", (Bundle(0, 1, (), (0,)),), "ipc passes weights within one GPU"),
        ("nccl", APART, ""),
        ("nccl", TWO_NODES, ""),
        ("nccl", CPU, "nccl sends weights from GPU to GPU, and this run is on a CPU, where they go through Ray's"),
        ("nccl", ONE_GPU, r"learner rank 0 and rollout worker 0 and rollout worker 1 share one \(NCCL refuses that\)"),
        ("nccl", CROWDED, "rollout worker 1 and rollout worker 2 share one"),
        (BY_FILES, ONE_GPU, ""),
        (BY_FILES, TWO_NODES, f"{BY_FILES} writes to a folder of one node, and there are several"),
    ],
)
def test_a_transport_is_refused_where_it_cannot_be(name: str, bundles: tuple[Bundle, ...], said: str) -> None:
    if said:
        with pytest.raises(TransportError, match=said):
            choose(name, bundles)
    else:
        assert choose(name, bundles).name == name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("icp", "there is no weight transport 'icp'; did you mean 'ipc'"),
        ("no.such:Thing", "cannot import no.such"),
        ("rlpost.rollout.engine:EngineError", "is not a class derived from .*Transport"),
    ],
)
def test_a_name_that_means_no_transport_is_explained(name: str, said: str) -> None:
    with pytest.raises(TransportError, match=said):
        find(name)


@pytest.mark.parametrize("name", TRANSPORTS.names)
def test_an_update_of_another_transport_is_refused(name: str) -> None:
    find(name).check(WeightUpdate(3, transport=name))
    with pytest.raises(EngineError, match=rf"version 3 refused: they came by 'other', .*started for '{name}'"):
        find(name).check(WeightUpdate(3, transport="other"))


def test_a_broadcast_must_have_met() -> None:
    with pytest.raises(RuntimeError, match="connect comes first"):
        next(iter(find("nccl").tensors(WeightUpdate(1, ["a"], ["float32"], [(1,)], "nccl", [None]))))


def test_an_adapter_alone_is_no_model() -> None:
    parameters = ModelParameters.of_module(torch.nn.Linear(2, 2, bias=False))
    update = WeightUpdate(1, ["weight"], ["float32"], [(2, 2)], payload=[None], rank=8)
    with pytest.raises(EngineError, match="they are adapters of rank 8, and this engine was started for whole models"):
        parameters.check(update)
