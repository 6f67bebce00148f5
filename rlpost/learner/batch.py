"""What goes into one learning step and what comes out of it: the learner's contract with the controller.

Left out: how a batch is packed (packing.py) and laid out as tensors (views.py), and how it travels (actor.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlpost.learner.config import LearnerConfig
from rlpost.reward.plugins import Plugin
from rlpost.rollout.trajectory import Trajectory
from rlpost.rollout.weight_update import DEFAULT_TRANSPORT


class LearnerError(RuntimeError):
    """The learner cannot go on; the message says at which step, why, and what to do."""


@dataclass(frozen=True, slots=True)
class LearnerSetup:
    """What every rank of a learner is started with.

    Attributes:
        folder: a plain Hugging Face folder (or hub name) with the weights and the tokenizer, see ``materialise``.
        config: the recipe's ``learner`` section.
        algorithm: the code of the recipe's algorithm, built by each rank; None where no step is ever learned.
        algorithm_options: the recipe's ``algorithm`` keys without ``name``.
        optimizer: the code of ``config.optimizer.name``; None: found by that name, which must not be a file's.
        trust_remote_code: run Python code that comes with the model.
        seed: seeds adapters' initial weights and everything else that is random in the learner.
        rendezvous: ``tcp://host:port`` or ``file:///path`` where ranks meet; not needed by a single rank.
        collective_timeout_s: seconds after which a collective that a lost rank never joins raises.
        transport: name of the transport that published weights travel by.
        publish_dtype: "fp32", "bf16" or "fp16", what engines compute in and weights travel in; None: as the learner.
        compiled: torch.compile the decoder layers; takes a minute at the first step.
        max_context: tokens of the run's longest sequence (``rollout.max_context``); None: as long as the model allows.
        yields_memory: give cached GPU memory back before every publication, to an engine that sleeps meanwhile.
    """

    folder: Path | str
    config: LearnerConfig = field(default_factory=LearnerConfig)
    algorithm: Plugin | None = None
    algorithm_options: dict[str, Any] = field(default_factory=dict)
    optimizer: Plugin | None = None
    trust_remote_code: bool = False
    seed: int = 0
    rendezvous: str = ""
    collective_timeout_s: float = 600.0
    transport: str = DEFAULT_TRANSPORT
    publish_dtype: str | None = None
    compiled: bool = False
    max_context: int | None = None
    yields_memory: bool = False


@dataclass(slots=True)
class StepBatch:
    """One batch of M rollouts, and where in the run it stands.

    Attributes:
        trajectories: M usable trajectories, group after group.
        advantages: (M,) float64, one a trajectory.
        group_ids: (M,) int64.
        step: 0-based number of this step.
        steps_total: number of steps of the run.
        nominal_sequences: trajectories a step has when none is lost or dropped (groups x group size).
        max_tokens: the recipe's token budget of one trajectory.
        lag: how many versions older than the learner the sampling weights may be; 0 is on-policy.
        seed: seeds the order of samples in mini-batches and an algorithm's own draws.
        temperature: temperature the rollouts were sampled at; log-probs and entropies are of that distribution.
        offpolicy_cap: upper bound of the off-policy weight; used where ``lag`` > 0.
    """

    trajectories: Sequence[Trajectory]
    advantages: NDArray[np.float64]
    group_ids: NDArray[np.int64]
    step: int
    steps_total: int
    nominal_sequences: int
    max_tokens: int
    lag: int = 0
    seed: int = 0
    temperature: float = 1.0
    offpolicy_cap: float = 2.0

    @property
    def progress(self) -> float:
        """Where the run stands, 0 at its first step and 1 at its last."""
        return min(1.0, self.step / (self.steps_total - 1)) if self.steps_total > 1 else 0.0


@dataclass(slots=True)
class LearnResult:
    """What one learning step did; the same on all ranks.

    Attributes:
        metrics: numbers for the log. Always there: ``lr, updates, skipped, loss, grad_norm, samples/kept``;
            ``tokens/packed``, of the kept sequences; ``tokens/learned``, policy tokens of them whose loss can move the
            policy; ``time/old_s`` (scoring, token selection), ``time/update_s``, of it ``time/optimizer_s``, and
            ``time/saved_s``, an estimate of what selection saved. Only where something was learned: ``kl_old,
            clip_fraction`` and the loss's other sums (a mean a token), ``entropy, offpolicy/ess, offpolicy/kl``; also
            what the algorithm's ``report`` says. Means over the step's updates, but for counts and times.
        kept: indices of the trajectories that were learned from, ascending.
        old_logprobs: one entry a trajectory: (T,) float32 log-probs of the learner at the start of the step, NaN where
            not policy; ``None`` for a dropped trajectory, and where an algorithm of several updates needs none.
        note: one line for the user where nothing was learned, else empty.
    """

    metrics: dict[str, float]
    kept: NDArray[np.int64]
    old_logprobs: list[NDArray[np.float32] | None]
    note: str = ""

    @property
    def skipped(self) -> bool:
        """Whether the step ended without an optimizer update."""
        return bool(self.metrics["skipped"])
