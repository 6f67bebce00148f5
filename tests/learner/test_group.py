"""The learner behind Ray: object references in, references out, and faults in words."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlpost.faults import RunError
from rlpost.learner.batch import LearnerSetup
from rlpost.learner.config import OptimizerConfig
from rlpost.learner.group import LearnerGroup
from rlpost.learner.learner import Learner
from rlpost.reward.plugins import Plugin
from tests.learner.helpers import batch, setup, tiny_folder

MINE = """
import os
from rlpost.algorithms.base import Algorithm, LossOutput
class Mine(Algorithm):
    def loss(self, views, constants):
        return LossOutput(-(views.logprobs * views.advantages * views.mask).sum() / constants.tokens)
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> LearnerSetup:
    """A tiny model and an algorithm in a file outside the checkout."""
    folder = tmp_path_factory.mktemp("group")
    (folder / "mine.py").write_text(MINE)
    model = tiny_folder(folder / "model")
    made = setup(model, threads=1, optimizer=OptimizerConfig(lr=1e-2))
    return replace(made, algorithm=Plugin.locate(f"{folder}/mine.py:Mine"))


@pytest.fixture(scope="module")
def group(ray_cluster: None, mine: LearnerSetup) -> Iterator[LearnerGroup]:
    """One rank, started once for the fast tests."""
    started = LearnerGroup(mine, deadline_s=120.0)
    started.wait_ready()
    yield started
    started.close()


def put(step: Any) -> list[Any]:
    import ray

    return [ray.put(one) for one in step.trajectories]


def test_the_actor_does_what_the_class_does(group: LearnerGroup, mine: LearnerSetup, tmp_path: Path) -> None:
    import ray

    plain = Learner(mine)
    assert group.vocabulary == plain.vocabulary == 264
    for step in range(2):
        rollouts = batch(6, seed=step, step=step)
        result = group.learn(put(rollouts), replace(rollouts, trajectories=[]))
        expected = plain.learn(rollouts)
        assert result.metrics["loss"] == pytest.approx(expected.metrics["loss"], abs=1e-5)
        assert result.kept.tolist() == expected.kept.tolist()
        for own, other in zip(result.old_logprobs, expected.old_logprobs, strict=True):
            np.testing.assert_allclose(own, other, atol=1e-4)
    sequences = [list(range(9)), [3, 4]]
    for own, other in zip(group.score(sequences, 0.7), plain.score(sequences, 0.7), strict=True):
        np.testing.assert_allclose(own, other, atol=1e-4)
    update, expected_update = ray.get(group.publish(2)[0]), plain.weights(2)
    assert (update.version, update.names) == (2, expected_update.names)
    for own, other in zip(update.payload, expected_update.payload, strict=True):
        np.testing.assert_allclose(own, other, atol=1e-4)
    group.save(tmp_path / "c")
    assert group.load(tmp_path / "c") == 2
    plain.close()


def test_an_error_inside_a_step_is_told_in_words(group: LearnerGroup) -> None:
    rollouts = batch(4)
    rollouts.advantages[:] = np.nan
    with pytest.raises(RunError, match=r"rank 0\) failed while learning step 0: .*norm is nan"):
        group.learn(put(rollouts), replace(rollouts, trajectories=[]))
    with pytest.raises(RunError, match="not a complete checkpoint"):
        group.load(Path("/nowhere"))


@pytest.mark.slow
def test_a_model_that_is_not_there(ray_cluster: None, mine: LearnerSetup) -> None:
    group = LearnerGroup(replace(mine, folder="/nowhere"))
    with pytest.raises(RunError, match=r"failed while loading the model: model\.path: there is no folder"):
        group.wait_ready()
    group.close()


@pytest.mark.slow
def test_two_ranks_and_one_that_hangs_then_dies(ray_cluster: None, mine: LearnerSetup) -> None:
    config = mine.config.model_copy(update={"ranks": 2})
    group = LearnerGroup(replace(mine, config=config, collective_timeout_s=60.0), deadline_s=120.0)
    group.wait_ready()
    rollouts = batch(6)
    refs, sent = put(rollouts), replace(rollouts, trajectories=[])
    assert group.learn(refs, sent).metrics["updates"] == 1
    assert len(group.score([[1, 2, 3]])[0]) == 2
    victim = group._pids[1]
    assert victim is not None
    os.kill(victim, signal.SIGSTOP)
    group.deadline_s = 5.0
    with pytest.raises(RunError, match=r"\(rank .*1\) was still learning step 0 after 5 s \(cluster.deadline_s\)"):
        group.learn(refs, sent)
    os.kill(victim, signal.SIGCONT)
    group.deadline_s = 120.0
    threading.Timer(1.0, os.kill, (victim, signal.SIGKILL)).start()
    started = time.monotonic()

    def learn_on() -> None:
        while time.monotonic() - started < 60:
            group.learn(refs, sent)

    with pytest.raises(RunError, match=rf"rank 1, process {victim}\) died while learning step"):
        learn_on()
    assert time.monotonic() - started < 60
    group.close()
