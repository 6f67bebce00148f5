"""Publishing weights, and verifying every publication before another rollout is used.

The learner hands out one version; every worker switches to it and then scores a fixed probe; the learner scores the
same tokens at the same version, while the next episodes begin. A gap above the bound stops the run: rollouts from wrong
weights look healthy and train nothing. Left out: how weights travel (rollout/transport) and load (rollout/vllm).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from rlpost.faults import CallFailed, RunError, gather
from rlpost.learner.actor import LearnerActor
from rlpost.learner.group import LearnerGroup
from rlpost.remote import Calls, value_of
from rlpost.rollout.engine import ProbeResult
from rlpost.rollout.transport.ends import Rendezvous
from rlpost.rollout.weight_update import WeightUpdate
from rlpost.workers import Method, RolloutActor, WorkerPool

PROBE_SEQUENCES = 4
PROBE_TOKENS = 16
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Gap:
    """How far the engines' log-probabilities are from the learner's at one version.

    Attributes:
        logprob_abs: mean |learner - engine| over the probe, the worst worker's, in nats.
        kl: mean (engine - learner) at tokens drawn by the engine, an estimate of KL(engine || learner).
    """

    logprob_abs: float
    kl: float


def probe_tokens(vocabulary: int, seed: int) -> list[list[int]]:
    """The fixed probe: a few random token sequences of the model's own vocabulary."""
    draw = np.random.default_rng([seed, 0x9E37])
    return [[int(t) for t in draw.integers(0, vocabulary, PROBE_TOKENS)] for _ in range(PROBE_SEQUENCES)]


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
        """Compare every worker's answer with the learner's, which must not have learned since; the worst one's gap.

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
        probe: the fixed probe sequences.
        temperature: the recipe's sampling temperature; the probe is compared at 1 and at this.
        bound: largest tolerated ``Gap.logprob_abs``.
        connects: the learner sends while the workers take, see ``Transport.connects``.
        gpus: GPUs of each engine.
    """

    def __init__(
        self,
        learner: LearnerGroup,
        pool: WorkerPool,
        probe: list[list[int]],
        temperature: float,
        bound: float,
        connects: bool = False,
        gpus: int = 1,
    ) -> None:
        self._learner = learner
        self._pool = pool
        self._probe = probe
        self._temperature = temperature
        self._bound = bound
        self._connects = connects
        self._gpus = gpus
        self._connected = False
        self._parts: list[WeightUpdate] = []
        pool.on_restart(self._bring_up_to_date)

    def publish(self, version: int) -> Publication:
        """Send the learner's current weights to every worker as ``version``; each has them, and has answered the probe,
        when this returns. Episodes may then begin, but none may be used before the publication is verified."""
        started = time.monotonic()
        self._parts = [value_of(ref) for ref in self._learner.publish(version)]
        answers = self._deliver(RolloutActor.adopt, self._probe, self._temperature, version, *self._parts)
        return Publication(version, time.monotonic() - started, lambda: self._verify(version, answers))

    def _verify(self, version: int, answers: Sequence[ProbeResult]) -> Gap:
        gaps = compare(answers, self._learner, self._probe, self._temperature)
        for index, (answer, gap) in enumerate(zip(answers, gaps, strict=True)):
            self._check(index, version, answer, gap)
        return max(gaps, key=lambda gap: gap.logprob_abs)

    def _check(self, index: int, version: int, answer: ProbeResult, gap: Gap) -> None:
        if answer.version != version:
            raise RunError(
                f"rollout worker {index} says it has policy version {answer.version} right after version {version} was "
                "published to it"
            )
        if not gap.logprob_abs <= self._bound:
            raise RunError(
                f"policy version {version}: the log-probabilities of rollout worker {index} differ from the "
                f"learner's by {gap.logprob_abs:.3g} nats on average, more than sync.gap_bound = {self._bound:g}. "
                "The worker does not sample from the weights being trained, so no further rollout was used. Causes "
                "seen: weights that did not arrive, a model whose engine and training code disagree, or a bound too "
                "tight for the engine's dtype"
            )

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
            self._deliver(RolloutActor.update, *self._parts)
        elif self._parts:
            self._pool.call(index, RolloutActor.update, *self._parts)


def compare(
    results: Sequence[ProbeResult], learner: LearnerGroup, probe: Sequence[list[int]], temperature: float
) -> list[Gap]:
    """Score each worker's probe with the learner, at T = 1 on the fixed tokens and at ``temperature`` on the drawn."""
    extended = [[*ids, drawn] for result in results for ids, drawn in zip(probe, result.sampled_ids, strict=True)]
    plain = learner.score(extended, 1.0)
    warm = plain if temperature == 1.0 else learner.score(extended, temperature)
    gaps = []
    for start, result in zip(range(0, len(extended), len(probe)), results, strict=True):
        own, ours = plain[start : start + len(probe)], warm[start : start + len(probe)]
        fixed = [np.abs(ids[:-1] - theirs) for ids, theirs in zip(own, result.fixed_logprobs, strict=True)]
        drawn: NDArray[np.float64] = np.array(result.sampled_logprobs) - np.array([ids[-1] for ids in ours])
        gaps.append(Gap(float(np.concatenate([*fixed, np.abs(drawn)]).mean()), float(drawn.mean())))
    return gaps
