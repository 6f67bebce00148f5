"""Publishing weights, and verifying every publication before another rollout is used.

The learner hands out one version; every worker switches to it, says what it then holds, and scores a probe; the learner
scores the same tokens at the same version, while the next episodes begin. Left out: what is checked (verify.py), how
weights travel (rollout/transport) and load (rollout/vllm).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from rlpost.faults import CallFailed, gather
from rlpost.learner.actor import LearnerActor
from rlpost.learner.group import LearnerGroup
from rlpost.remote import Calls, value_of
from rlpost.rollout.digest import Sent
from rlpost.rollout.engine import Adoption, ProbeRows
from rlpost.rollout.transport.ends import Rendezvous
from rlpost.rollout.weight_update import WeightUpdate
from rlpost.verify import Gap, Verifier
from rlpost.workers import Method, RolloutActor, WorkerPool

P = ParamSpec("P")
R = TypeVar("R")


class Publication:
    """One version that every worker has; no rollout of it may be used before ``verified`` has returned.

    Attributes:
        version: the policy version.
        seconds: what sending it and, once that is done, verifying it took.
    """

    def __init__(self, version: int, seconds: float, compare: Callable[[], Gap]) -> None:
        self.version, self.seconds = version, seconds
        self._compare = compare

    def verified(self) -> Gap:
        """Check every worker's answer, while the learner has not learned since; the worst one's gap.

        Raises:
            RunError: a worker does not have the learner's weights.
        """
        started = time.monotonic()
        gap = self._compare()
        self.seconds += time.monotonic() - started
        return gap


class Publisher:
    """Publishes versions of the learner's weights to all workers.

    Args:
        learner: the single copy.
        pool: the rollout workers.
        verifier: checks what arrives.
        temperature: the recipe's sampling temperature; the probe is compared at 1 and at this.
        connects: the learner sends while the workers take, see ``Transport.connects``.
        gpus: GPUs of each engine.
    """

    def __init__(
        self,
        learner: LearnerGroup,
        pool: WorkerPool,
        verifier: Verifier,
        temperature: float,
        connects: bool = False,
        gpus: int = 1,
    ) -> None:
        self._learner = learner
        self._pool = pool
        self._verifier = verifier
        self._temperature = temperature
        self._connects = connects
        self._gpus = gpus
        self._connected = False
        self._parts: list[WeightUpdate] = []
        self._sent: dict[str, Sent] = {}
        self._version = 0
        pool.on_restart(self._bring_up_to_date)

    def publish(self, version: int) -> Publication:
        """Send the learner's current weights to every worker as ``version``; each has them, and has answered the probe,
        when this returns. Episodes may then begin, but none may be used before the publication is verified."""
        started = time.monotonic()
        self._version = version
        self._parts = [value_of(ref) for ref in self._learner.publish(version)]
        rows = self._verifier.rows(version)
        adoptions = self._deliver(RolloutActor.adopt, rows, self._temperature, version, *self._parts)
        self._sent = self._learner.call("digesting the weights", LearnerActor.sent, version)[0]
        return Publication(version, time.monotonic() - started, lambda: self._verify(version, rows, adoptions))

    def remember(self, token_ids: Sequence[NDArray[np.int32]]) -> None:
        """Recent rollouts, (T,) each, for the rows that later versions are probed with."""
        self._verifier.remember(token_ids)

    def _verify(self, version: int, rows: ProbeRows, adoptions: Sequence[Adoption]) -> Gap:
        for worker, adoption in enumerate(adoptions):
            self._verifier.arrived(version, self._sent, worker, adoption.held)
        return self._verifier.computes(version, rows, adoptions)

    def _deliver(self, method: Method[P, R], *args: P.args, **kwargs: P.kwargs) -> list[R]:
        """Have all workers take the weights, in a call of this method; their answers.

        Where the transport connects the learner sends at the same time. Workers sample on until all of it has begun.
        """
        if not self._connects:
            return self._pool.call_all(method, *args, **kwargs)
        if not self._connected:
            self._connect()
        sending = self._learner.ask(LearnerActor.send)
        return self._together("sending the weights", sending, self._pool.ask(method, *args, **kwargs))

    def _connect(self) -> None:
        """Have both ends meet: learner rank 0, then the GPUs of each engine."""
        _, address = self._learner.call("finding a port", LearnerActor.address)[0]
        host, port = address.removeprefix("tcp://").rsplit(":", 1)
        where = Rendezvous(host, int(port), 1 + self._gpus * len(self._pool))
        meeting = self._learner.ask(LearnerActor.connect, where)
        self._together("opening the broadcast", meeting, self._pool.ask(RolloutActor.connect, where, self._gpus))
        self._connected = True

    def _together(self, what: str, own: Calls[Any], theirs: Calls[R]) -> list[R]:
        """A call to the learner and one to the workers that wait for each other; the workers' answers.

        Raises:
            RunError: one failed, died or did not end in time.
        """
        ranks = len(own.refs)
        try:
            return gather([*own.refs, *theirs.refs], self._learner.deadline_s)[ranks:]
        except CallFailed as failed:
            if failed.place < ranks:
                self._learner.fail(failed, what)
            self._pool.fail(failed.place - ranks, failed.error, theirs.method)

    def _bring_up_to_date(self, index: int) -> None:
        """Give a fresh worker the current weights; where the transport connects, to all, who must meet again."""
        self._connected = False
        if self._parts and self._connects:
            held = self._deliver(RolloutActor.update, *self._parts)[index]
        elif self._parts:
            held = self._pool.call(index, RolloutActor.update, *self._parts)
        else:
            return
        self._verifier.arrived(self._version, self._sent, index, held)
