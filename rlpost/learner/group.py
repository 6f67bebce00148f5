"""All ranks of the learner as one object: the runtime's handle on it.

Every call goes to all ranks, has a deadline, and a fault says which rank, doing what, with its last log lines. Left
out: restarting a rank (a run resumes from its last checkpoint), and what the ranks do (learner.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar

import numpy as np
import ray
from numpy.typing import NDArray

from rlpost.faults import CallFailed, RunError, gather, last_log_lines
from rlpost.learner.actor import LearnerActor
from rlpost.learner.batch import LearnerSetup, LearnResult, StepBatch
from rlpost.remote import Calls, remote, start
from rlpost.rollout.vllm.config import intel_openmp
from rlpost.rollout.weight_update import WeightUpdate

P = ParamSpec("P")
R = TypeVar("R")
L = TypeVar("L", bound=LearnerActor)


class LearnerGroup:
    """Starts the ranks and returns at once; ``wait_ready`` blocks until the model is loaded.

    Args:
        setup: what every rank is started with; ``rendezvous`` is filled in here.
        seat: Ray options of a rank: its GPUs and where they are; absent: a CPU, anywhere.
        deadline_s: seconds any call may take.
        start_deadline_s: seconds the ranks may take to load the model.
        actor: class of each rank's actor.

    Attributes:
        deadline_s: as given.
        vocabulary: rows of the output head; known after ``wait_ready``.
    """

    def __init__(
        self,
        setup: LearnerSetup,
        seat: Callable[[int], dict[str, Any]] = lambda rank: {"num_cpus": 1},
        deadline_s: float = 600.0,
        start_deadline_s: float = 900.0,
        actor: type[LearnerActor] = LearnerActor,
    ) -> None:
        self._world = setup.config.ranks
        self.deadline_s = deadline_s
        self._start_deadline_s = start_deadline_s
        self._pids: list[int | None] = [None] * self._world
        self.vocabulary = 0
        seats = [seat(rank) for rank in range(self._world)]
        how = {"max_restarts": 0, "runtime_env": {"env_vars": _environment(setup, bool(seats[0].get("num_gpus")))}}
        self._actors = [start(actor, how | options, setup, rank, self._world) for rank, options in enumerate(seats)]
        self._addresses = self.ask(LearnerActor.address)

    def wait_ready(self) -> None:
        """Block until all ranks have loaded the model.

        Raises:
            RunError: the model is missing, broken or refused; a rank died or took too long.
        """
        found = self._wait(self._addresses, "starting", self._start_deadline_s)
        self._pids = [pid for pid, _ in found]
        rendezvous = found[0][1]
        starting = self.ask(LearnerActor.start, rendezvous)
        self.vocabulary = self._wait(starting, "loading the model", self._start_deadline_s)[0]

    def learn(self, refs: Sequence[ray.ObjectRef], batch: StepBatch) -> LearnResult:
        """One learning step.

        Args:
            refs: one reference a trajectory, in the order of ``batch.advantages``.
            batch: everything else; its own ``trajectories`` are not looked at.

        Raises:
            RunError: see ``Learner.learn``; or a rank died or took too long.
        """
        return self.call(f"learning step {batch.step}", LearnerActor.learn, list(refs), batch)[0]

    def score(self, sequences: Sequence[Sequence[int]], temperature: float = 1.0) -> list[NDArray[np.float32]]:
        """Log-probs of tokens 1.. of each sequence, (L_i - 1,) float32 each, with the weights as they are now."""
        return self.call("scoring", LearnerActor.score, [list(ids) for ids in sequences], temperature)[0]

    def publish(self, version: int) -> list[ray.ObjectRef[WeightUpdate]]:
        """Hand out the current weights as ``version``: references to the parts of a ``WeightUpdate``, of all ranks."""
        found = self.call(f"publishing version {version}", LearnerActor.publish, version)
        return [ref for parts in found for ref in parts]

    def save(self, folder: Path) -> None:
        """Write a checkpoint into ``folder``: a Hugging Face folder plus the trainer's state."""
        self.call(f"saving {folder}", LearnerActor.save, str(folder))

    def load(self, folder: Path) -> int:
        """Go on from a checkpoint; the number of learning steps it has behind it."""
        return self.call(f"loading {folder}", LearnerActor.load, str(folder))[0]

    def close(self) -> None:
        """End all ranks."""
        for actor in self._actors:
            ray.kill(actor, no_restart=True)
        self._actors = []

    def call(self, what: str, method: Callable[Concatenate[L, P], R], *args: P.args, **kwargs: P.kwargs) -> list[R]:
        """What a method of the actors returned on each rank; ``what`` it is for stands in the message of a fault."""
        return self._wait(self.ask(method, *args, **kwargs), what, self.deadline_s)

    def ask(self, method: Callable[Concatenate[L, P], R], *args: P.args, **kwargs: P.kwargs) -> Calls[R]:
        """The same call to all ranks, not waited for."""
        return Calls(method.__name__, [remote(actor, method, *args, **kwargs) for actor in self._actors])

    def _wait(self, asked: Calls[R], what: str, deadline_s: float) -> list[R]:
        try:
            return gather(asked.refs, deadline_s)
        except CallFailed as failed:
            self.fail(failed, what, deadline_s)

    def fail(self, failed: CallFailed, what: str, deadline_s: float | None = None) -> NoReturn:
        """Say which rank failed, doing what.

        Raises:
            RunError: always.
        """
        rank, error = failed.place, failed.error
        if error is None:
            ranks = ", ".join(str(rank) for rank in failed.missing if rank < self._world)
            limit = self.deadline_s if deadline_s is None else deadline_s
            raise RunError(f"the learner (rank {ranks}) was still {what} after {limit:.0f} s (cluster.deadline_s)")
        if isinstance(error, ray.exceptions.RayActorError):
            raise RunError(
                f"the learner (rank {rank}, process {self._pids[rank]}) died while {what}. Its last lines:\n"
                f"{last_log_lines(self._pids[rank])}\nIf the machine ran out of memory, lower "
                "learner.max_tokens_per_pack, or set learner.gradient_checkpointing: true. A run goes on from its last "
                "checkpoint with: rlpost train --resume RUN"
            ) from error
        cause = getattr(error, "cause", error)
        known = type(cause).__module__.partition(".")[0] == "rlpost"
        text = str(cause) if known else f"{type(cause).__name__}: {cause}"
        raise RunError(f"the learner (rank {rank}) failed while {what}: {text}") from error


def _environment(setup: LearnerSetup, on_gpu: bool) -> dict[str, str]:
    """Variables that must be there before torch is imported; Ray would give every actor one OpenMP thread.

    On a CPU, GNU's OpenMP makes a step several times slower as soon as another process wants the cores: a thread that
    waits spins while the one it waits for is not running. Intel's, told to sleep soon, does not.
    """
    threads = setup.config.threads or max(1, len(os.sched_getaffinity(0)) // setup.config.ranks)
    variables = {"OMP_NUM_THREADS": str(threads)}
    openmp = None if on_gpu else intel_openmp()
    return variables | ({"LD_PRELOAD": str(openmp), "KMP_BLOCKTIME": "1"} if openmp else {})
