"""Adapters on a real vLLM engine in bfloat16: they arrive bit for bit, also where a merge would lose them, and what the
engine then computes is what the learner computes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlpost.learner.config import LoraConfig, OptimizerConfig
from rlpost.learner.learner import Learner
from rlpost.rollout.digest import Held, mismatches
from rlpost.rollout.engine import EngineError, ProbeResult
from rlpost.rollout.weight_update import Adapters, WeightUpdate
from tests.learner.helpers import Clipped, batch, setup
from tests.support.vllm_host import CONFIG, engine_host

LORA = LoraConfig(rank=4, alpha=6)
PROBE = [list(range(3, 60)), [9, 8, 7, 6, 5]]


async def load_and_probe(engine: Any, update: WeightUpdate) -> tuple[list[Held], ProbeResult]:
    held = await engine.update_weights(dataclasses.replace(update, version=engine.version + 1))
    return held, await engine.probe(PROBE, 1.0, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support.vllm_host import small_model

    place = tmp_path_factory.mktemp("adapted")
    model = small_model()
    model.resize_token_embeddings(264)  # the ids of the learner's test batches
    model.to(torch.bfloat16).save_pretrained(place)
    return place


def test_twenty_small_updates_arrive_bit_for_bit(ray_cluster: None, folder: Path) -> None:
    from rlpost.algorithms.base import Plan

    learner = Learner(
        setup(folder, lora=LORA, dtype="bf16", optimizer=OptimizerConfig(lr=1e-6)), algorithm=Clipped(Plan(1, 1))
    )
    with engine_host(folder, CONFIG.model_copy(update={"dtype": "bf16"}), adapters=Adapters(4, LORA.targets)) as run:
        held, before = run(load_and_probe, learner.weights(0))
        assert mismatches(learner.sent(0), held) == []
        first = learner.score(PROBE)
        for step in range(20):
            learner.learn(batch(8, step=step))
        update = learner.weights(1)
        held, after = run(load_and_probe, update)
        assert mismatches(learner.sent(1), held) == []
        assert {name for process in held for name in process} == set(update.names)
        moved = [np.abs(array).max() for name, array in zip(update.names, update.payload, strict=True) if "_B." in name]
        assert min(moved) > 0  # B began at 0
        for was, now, theirs_was, theirs in zip(
            first, learner.score(PROBE), before.fixed_logprobs, after.fixed_logprobs, strict=True
        ):
            assert np.abs(now - theirs).mean() < 0.02  # bfloat16's own
            assert np.abs(was - theirs_was).mean() < 0.02
    learner.close()


def test_what_does_not_fit_is_refused(ray_cluster: None, folder: Path) -> None:
    learner = Learner(setup(folder, lora=LoraConfig(rank=2)))
    update = learner.weights(1)
    learner.close()
    with engine_host(folder, adapters=Adapters(4, LORA.targets)) as run:
        with pytest.raises(EngineError, match="adapters of rank 2, and this engine was started for adapters of rank 4"):
            run(load_and_probe, update)
        wrong = dataclasses.replace(update, rank=4)
        with pytest.raises(EngineError, match=r"lora_A\.weight' has shape \(2, 128\), the model's is \(4, 128\)"):
            run(load_and_probe, wrong)
