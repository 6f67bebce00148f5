"""What an algorithm is: a few pure functions of arrays, all but ``loss`` with a default.

The learner knows no algorithm by name. It asks for ``advantages`` of complete groups, lets ``select_samples`` drop
trajectories before it pays for anything, computes what ``needs`` names on the kept ones, lets ``select_tokens`` narrow
the mask, and calls ``loss`` on packed views: each trajectory, or masked copies of it where ``views`` asks for some. A
loss is a **sum** divided by constants of the whole optimizer step, so that splitting it into micro-batches or over
ranks never changes the gradient. Left out: Ray, I/O, models, optimizers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlpost.reward.validation import Problem
from rlpost.rollout.trajectory import Group, Trajectory

Need = Literal["old_logprobs", "entropies", "ref_logprobs"]
TrainerKind = Literal["policy", "bilevel"]
ModelKind = Literal["causal", "diffusion"]


class AlgorithmError(ValueError):
    """An algorithm was given options or data it cannot work with; ``str`` of it names the options.

    Args:
        what: one sentence that does not repeat the key, or all that is wrong, each with its path below ``algorithm``.
        key: dotted path of the option at fault below ``algorithm``; absent: no one option is.
    """

    def __init__(self, what: str | Sequence[Problem], key: str | None = None) -> None:
        path = tuple(key.split(".")) if key else ()
        self.problems = (Problem(path, what),) if isinstance(what, str) else tuple(what)
        super().__init__("\n".join(str(one.below("algorithm") if one.path else one) for one in self.problems))

    @property
    def key(self) -> str | None:
        """Dotted path, below ``algorithm``, of the first option at fault."""
        return self.problems[0].key or None

    def __reduce__(self) -> tuple[type[AlgorithmError], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)  # crosses process borders whole


@dataclass(frozen=True, slots=True)
class Plan:
    """How one step's batch is turned into optimizer updates.

    Attributes:
        epochs: passes over the kept samples.
        minibatches: optimizer updates an epoch; samples are reshuffled (seeded) between epochs.
    """

    epochs: int = 1
    minibatches: int = 1


@dataclass(frozen=True, slots=True)
class StepConstants:
    """Constants of one optimizer update, the same for all its micro-batches and ranks.

    Attributes:
        sequences: sequences in this update: kept trajectories, times the views of each.
        tokens: scored tokens in this update, after token selection.
        nominal_sequences: sequences an update of the recipe has when nothing is dropped.
        max_tokens: the recipe's token budget of one trajectory (Dr.GRPO's constant).
        policy_tokens: policy tokens of the update's kept sequences before token selection; 0 means ``tokens``,
            the same number where no tokens were dropped.
    """

    sequences: int
    tokens: int
    nominal_sequences: int
    max_tokens: int
    policy_tokens: int = 0


@dataclass(frozen=True, slots=True)
class View:
    """One sequence that the model computes for a trajectory of T tokens.

    Attributes:
        scored: (T,) bool, tokens whose log-probability the loss wants.
        masked: (T,) bool, tokens in whose place a diffusion model sees its mask token; None: it sees all of them.
        extra: (T,) float32 arrays, handed to the loss as ``PackedViews.extra``.
    """

    scored: NDArray[np.bool_]
    masked: NDArray[np.bool_] | None = None
    extra: dict[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(slots=True)
class PackedViews:
    """What a loss sees: N policy-candidate positions of S whole sequences (views), concatenated.

    Position n predicts ``token n``; prompt and observation positions are present with ``mask`` false.

    Attributes:
        logprobs: (N,) current log-probabilities, with gradient.
        entropies: (N,) current entropies, with gradient; ``None`` unless the loss asked for them.
        old_logprobs: (N,) of the learner at the start of the step, no gradient. Where a step has one update this
            is ``logprobs.detach()`` itself, so the ratio is exactly 1.
        rollout_logprobs: (N,) as sampled; NaN where not policy.
        ref_logprobs: (N,) of the LoRA-free base, or ``None``.
        advantages: (N,) the sequence's advantage at each of its positions.
        mask: (N,) bool, true where the token counts in the loss.
        sequence: (N,) int64 in 0..S-1, which sequence the position belongs to.
        turn: (N,) int64, index of the turn within its sequence, -1 where not policy.
        sequence_tokens: (S,) number of policy tokens of each sequence (before token selection).
        offpolicy_weight: (N,) truncated importance weight old/rollout, no gradient; ``None`` at lag 0.
        response: (S,) int64, equal for views of one trajectory; None where each is one of its own.
        extra: (N,) whatever ``views`` and ``preview_extra`` of the algorithm attached, e.g. 1 / t (diffusion).
    """

    logprobs: Tensor
    entropies: Tensor | None
    old_logprobs: Tensor
    rollout_logprobs: Tensor
    ref_logprobs: Tensor | None
    advantages: Tensor
    mask: Tensor
    sequence: Tensor
    turn: Tensor
    sequence_tokens: Tensor
    offpolicy_weight: Tensor | None = None
    response: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)

    @property
    def sequences(self) -> int:
        """S."""
        return len(self.sequence_tokens)


@dataclass(slots=True)
class LossOutput:
    """A loss to be minimised, and sums for the log.

    Attributes:
        loss: scalar; a sum over this micro-batch divided by constants of the whole update.
        sums: detached scalars that add up over micro-batches and ranks, e.g. ``clipped`` (a count of tokens).
            The learner divides each by the update's token count and logs it; ``kl_old`` and ``clip_fraction`` are
            expected of every policy-gradient loss.
    """

    loss: Tensor
    sums: dict[str, Tensor] = field(default_factory=dict)


class Algorithm:
    """Base class; subclass it, give ``loss``, and name your class in the recipe (``algorithm.name: my_algo.py:Mine``).

    Args:
        options: the algorithm's own keys of the recipe, already parsed by ``Config`` if the class has one.
    """

    Config: ClassVar[type | None] = None
    """A pydantic model of this algorithm's own recipe keys (at most 12), or None where it takes none."""
    trainer: ClassVar[TrainerKind] = "policy"
    atomic: ClassVar[Literal["view", "response"]] = "view"
    """"response" where all views of one response must share one autograd graph."""
    model: ClassVar[ModelKind] = "causal"
    """The kind of model it trains."""
    allows_lag: ClassVar[bool] = True
    """Whether rollouts may come from older weights (``lag`` > 0)."""
    preview: ClassVar[bool] = False
    """Whether an update that is not the step's only one is scored without gradient first, for ``preview_extra``."""

    def __init__(self, config: Any = None) -> None:
        self.config = config if config is not None or self.Config is None else self.Config()

    @property
    def needs(self) -> frozenset[Need]:
        """What the learner must compute before the first update of a step, on kept samples only."""
        return frozenset({"old_logprobs"})

    @property
    def loss_entropies(self) -> bool:
        """Whether ``loss`` reads ``views.entropies`` (with gradient), as an entropy bonus does."""
        return False

    @property
    def plan(self) -> Plan:
        """Epochs and mini-batches of a step."""
        return Plan()

    def check_batch(self, groups: int, group_size: int) -> None:
        """Refuse a recipe whose steps have so many groups of this size, where this algorithm cannot work with them.

        Raises:
            AlgorithmError: it cannot; ``key`` names the option to change.
        """

    @property
    def refill_budget(self) -> int:
        """How many groups a step may draw anew where ``wants_refill`` says so (dynamic sampling); 0 turns it off."""
        return 0

    def wants_refill(self, rewards: NDArray[np.float64]) -> bool:
        """Whether a complete group with these (K,) rewards should be replaced by a new task's group."""
        return False

    def advantages(self, groups: Sequence[Group]) -> list[NDArray[np.float64]]:
        """One (K,) array a group, in order."""
        raise NotImplementedError

    def select_samples(
        self, advantages: NDArray[np.float64], group_ids: NDArray[np.int64], progress: float, seed: int
    ) -> NDArray[np.int64]:
        """Indices, into the M flattened trajectories of the step, that are worth learning from; ``progress`` in [0, 1].

        An empty answer means that there is nothing to learn: the step makes no update, is counted, and says so.
        """
        return np.arange(len(advantages))

    def kept_advantages(
        self,
        trajectories: Sequence[Trajectory],
        advantages: NDArray[np.float64],
        group_ids: NDArray[np.int64],
        kept: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """(len(kept),) the advantages the learner uses, asked for right after ``select_samples``. The step's M
        trajectories, their advantages and groups come in the order that ``kept`` indexes. Unchanged but for variants
        that recompute them over the kept ones (PODS)."""
        return advantages[kept]

    def report(
        self, advantages: NDArray[np.float64], group_ids: NDArray[np.int64], kept: NDArray[np.int64]
    ) -> dict[str, float]:
        """Numbers about the sample selection for the step's log."""
        return {}

    def select_tokens(
        self, advantages: Tensor, entropies: Tensor | None, mask: Tensor, sequence: Tensor, progress: float
    ) -> Tensor:
        """(N,) bool: the tokens of all kept samples that count in the loss; a subset of ``mask``."""
        return mask

    def views(self, trajectory: Trajectory, rng: np.random.Generator) -> Sequence[View]:
        """The sequences to compute for a kept trajectory, drawn once a step; the same number for each. The default is
        the trajectory as it was sampled."""
        return [View(trajectory.policy_mask)]

    def preview_extra(self, views: PackedViews) -> dict[str, Tensor]:
        """(N,) constants for the loss, from all views of an update scored with the current weights (``preview``)."""
        return {}

    def stop(self, metrics: Mapping[str, float]) -> bool:
        """Whether to abandon the rest of this step's updates (an early-KL stop); asked after each update.

        ``metrics`` are that update's loss sums (``LossOutput.sums``), each divided by the update's token count.
        """
        return False

    def loss(self, views: PackedViews, constants: StepConstants) -> LossOutput:
        """The loss of one micro-batch; see LossOutput for what it must return."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Derived facts for ``rlpost explain``."""
        return {}


def sequence_sum(values: Tensor, sequence: Tensor, count: int) -> Tensor:
    """Sum (N,) values over each of ``count`` sequences -> (S,)."""
    return torch.zeros(count, dtype=values.dtype, device=values.device).index_add(0, sequence, values)
