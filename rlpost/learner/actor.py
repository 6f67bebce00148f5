"""The Ray actor around one rank of the learner; ray is imported in this file and in group.py only.

It does three things the plain class does not: it loads the model in a call of its own (an error in an actor's
constructor loses its words), turns object references into trajectories, and puts weights into the object store. Left
out: deadlines and messages (group.py).
"""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import ray
from numpy.typing import NDArray

from rlpost.learner.batch import LearnerSetup, LearnResult, StepBatch
from rlpost.learner.learner import Learner
from rlpost.rollout.transport.ends import Rendezvous
from rlpost.rollout.weight_update import WeightUpdate


class LearnerActor:
    """One rank as an actor process.

    Args:
        setup: what all ranks are started with.
        rank, world: this rank of how many.
    """

    def __init__(self, setup: LearnerSetup, rank: int, world: int) -> None:
        self._setup = setup
        self._rank = rank
        self._world = world
        self._learner: Learner

    def address(self) -> tuple[int, str]:
        """This process's id, and a free ``tcp://host:port`` on this node where ranks can meet."""
        with socket.socket() as free:
            free.bind(("", 0))
            return os.getpid(), f"tcp://{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def start(self, rendezvous: str) -> int:
        """Load the model; its vocabulary's size."""
        self._learner = Learner(replace(self._setup, rendezvous=rendezvous), self._rank, self._world)
        return self._learner.vocabulary

    def learn(self, refs: list[ray.ObjectRef], batch: StepBatch) -> LearnResult:
        """One learning step on the trajectories behind ``refs``; rank 0 alone sends back the per-token arrays."""
        result = self._learner.learn(replace(batch, trajectories=ray.get(refs)))
        return result if self._rank == 0 else replace(result, old_logprobs=[])

    def score(self, sequences: list[list[int]], temperature: float) -> list[NDArray[np.float32]]:
        """See ``Learner.score``."""
        return self._learner.score(sequences, temperature)

    def publish(self, version: int) -> list[ray.ObjectRef[WeightUpdate]]:
        """Put this rank's share of the weights into the object store, part by part."""
        return [ray.put(part) for part in self._learner.weight_parts(version)]

    def connect(self, where: Rendezvous) -> None:
        """See ``Learner.connect``."""
        self._learner.connect(where)

    def send(self) -> None:
        """See ``Learner.send``."""
        self._learner.send()

    def save(self, folder: str) -> None:
        """See ``Learner.save``."""
        self._learner.save(Path(folder))

    def load(self, folder: str) -> int:
        """See ``Learner.load``."""
        return self._learner.load(Path(folder))
