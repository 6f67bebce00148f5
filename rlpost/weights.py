"""Publishing weights, and verifying every publication before another rollout is used.

The learner puts one version into the object store, hands out CUDA IPC handles, or broadcasts it; every worker switches
to it and then scores a fixed probe; the learner scores the same tokens at the same version, while the next episodes
begin. A gap above the bound stops the run: rollouts from wrong weights look healthy and train nothing. Left out: how an
engine loads weights (rollout/vllm).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from rlpost.faults import CallFailed, RunError, gather
from rlpost.learner.group import LearnerGroup
from rlpost.rollout.engine import ProbeResult
from rlpost.workers import WorkerPool

PROBE_SEQUENCES = 4
PROBE_TOKENS = 16


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


class Publisher:
    """Publishes versions of the learner's weights to all workers.

    Args:
        learner: the single copy.
        pool: the rollout workers.
        probe: the fixed probe sequences.
        temperature: the recipe's sampling temperature; the probe is compared at 1 and at this.
        bound: largest tolerated ``Gap.logprob_abs``.
        broadcast: GPUs of each engine, where weights come by broadcast; 0: where they come by reference.
    """

    def __init__(
        self,
        learner: LearnerGroup,
        pool: WorkerPool,
        probe: list[list[int]],
        temperature: float,
        bound: float,
        broadcast: int = 0,
    ) -> None:
        self._learner = learner
        self._pool = pool
        self._probe = probe
        self._temperature = temperature
        self._bound = bound
        self._broadcast = broadcast
        self._connected = False
        self._parts: list[ray.ObjectRef] = []
        self._answers: list[ProbeResult] = []
        self.version = 0
        self.seconds = 0.0
        pool.on_restart(self._bring_up_to_date)

    def publish(self, version: int) -> None:
        """Send the learner's current weights to every worker as ``version``; each has them, and has answered the probe,
        when this returns. Episodes may then begin, but none may be used before ``verify``."""
        started = time.monotonic()
        self._parts = self._learner.publish(version)
        self._answers = self._deliver("adopt", self._probe, self._temperature, version)
        self.version = version
        self.seconds = time.monotonic() - started

    def verify(self) -> Gap:
        """Compare every worker's answer with the learner's, which must not have learned since; the worst one's gap.

        Raises:
            RunError: a worker does not have the learner's weights.
        """
        started = time.monotonic()
        gaps = compare(self._answers, self._learner, self._probe, self._temperature)
        for index, (result, gap) in enumerate(zip(self._answers, gaps, strict=True)):
            self._check(index, result, gap)
        self.seconds += time.monotonic() - started
        return max(gaps, key=lambda gap: gap.logprob_abs)

    def _check(self, index: int, result: ProbeResult, gap: Gap) -> None:
        if result.version != self.version:
            raise RunError(
                f"rollout worker {index} says it has policy version {result.version} right after version "
                f"{self.version} was published to it"
            )
        if not gap.logprob_abs <= self._bound:
            raise RunError(
                f"policy version {self.version}: the log-probabilities of rollout worker {index} differ from the "
                f"learner's by {gap.logprob_abs:.3g} nats on average, more than sync.gap_bound = {self._bound:g}. "
                "The worker does not sample from the weights being trained, so no further rollout was used. Causes "
                "seen: weights that did not arrive, a model whose engine and training code disagree, or a bound too "
                "tight for the engine's dtype"
            )

    def _deliver(self, method: str, *arguments: Any) -> list[Any]:
        """Have all workers take the weights, in a call of this method; their answers.

        By broadcast the learner sends at the same time. Workers sample on until all of it has begun.
        """
        if not self._broadcast:
            return self._pool.call_all(method, *arguments, *self._parts)
        if not self._connected:
            self._connect()
        asked = [(*arguments, *self._parts)] * len(self._pool)
        return self._together("sending the weights", "send", (), method, asked)

    def _connect(self) -> None:
        """Open the broadcast: learner rank 0, then the GPUs of each engine."""
        _, address = self._learner.call("finding a port", "address")[0]
        host, port = address.removeprefix("tcp://").rsplit(":", 1)
        world = 1 + self._broadcast * len(self._pool)
        each = [(host, int(port), 1 + self._broadcast * index, world) for index in range(len(self._pool))]
        self._together("opening the broadcast", "connect", (host, int(port), world), "connect", each)
        self._connected = True

    def _together(
        self, what: str, own: str, arguments: tuple[Any, ...], theirs: str, each: list[tuple[Any, ...]]
    ) -> list[Any]:
        """A call to the learner and one to the workers that wait for each other; the workers' answers.

        Raises:
            RunError: one failed, died or did not end in time.
        """
        sending = self._learner.ask(own, *arguments)
        asked = self._pool.ask_each(theirs, each)
        try:
            return gather([*sending, *asked], self._learner.deadline_s)[len(sending) :]
        except CallFailed as failed:
            if failed.place < len(sending):
                self._learner.fail(failed, what)
            self._pool.fail(failed.place - len(sending), failed.error, theirs)

    def _bring_up_to_date(self, index: int) -> None:
        """Give a fresh worker the current weights; by broadcast all take them again, since all must join anew."""
        self._connected = False
        if self._parts and self._broadcast:
            self._deliver("update")
        elif self._parts:
            self._pool.call(index, "update", *self._parts)


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
