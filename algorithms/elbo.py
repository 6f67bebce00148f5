"""The likelihood of a masked-diffusion policy: a lower bound (ELBO), estimated from a few masked copies of a response.

    B(y|x) = E_{t ~ U(0,1], y_t} [l(y_t, t)],   l = (1/t) sum_{i: y_t^i masked} log p(y^i | y_t, x)  <=  log p(y|x)

``draw_masks`` draws the n_t copies, once a step, so that old and new policy see the same ones; ``elbo_terms`` sums
l. Both ways of drawing are unbiased: ``iid`` draws t and masks each token with probability t; ``stratified`` spreads
the numbers of masked tokens evenly over 1..L, from one random start, and weighs by L / k. Left out: losses
(bgpo.py, vrpo_ol.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from rlpost.algorithms.advantages import centered
from rlpost.algorithms.base import AlgorithmError, LossOutput, ModelKind, PackedViews, StepConstants, View, sequence_sum
from rlpost.algorithms.grouped import Grouped
from rlpost.algorithms.grpo import GRPOAdvantage
from rlpost.algorithms.objective import k3
from rlpost.algorithms.policy_config import GroupedConfig
from rlpost.algorithms.ratios import LOG_RATIO_LIMIT
from rlpost.rollout.trajectory import Trajectory

Masks = Literal["stratified", "iid"]


class ElboConfig(GroupedConfig):
    """Keys of the algorithms on a diffusion model's ELBO."""

    n_t: int = Field(16, ge=1, description="masked copies of each response")
    masks: Masks = Field(
        "stratified", description="stratified: numbers of masked tokens spread evenly over 1..L; iid: t ~ U(0, 1]"
    )
    length_normalized: bool = Field(False, description="divide the ELBO by the response's length")
    max_log_ratio: float = Field(
        LOG_RATIO_LIMIT,
        gt=0,
        le=60,
        description="beyond this exp is continued by its tangent, so that it cannot overflow; such copies are counted",
    )
    advantage: GRPOAdvantage = Field(default_factory=GRPOAdvantage, description="how rewards become advantages")


def draw_masks(
    length: int, count: int, masks: Masks, rng: np.random.Generator
) -> list[tuple[NDArray[np.bool_], float]]:
    """``count`` masked copies of a response of ``length`` tokens.

    Returns:
        For each copy (length,) bool, true where masked, and the weight of its log-probabilities: 1 / t, or L / k
        where k tokens are masked.
    """
    if masks == "iid":
        times = 1.0 - rng.random(count)  # (0, 1]
        return [(rng.random(length) < t, 1.0 / t) for t in times]
    start = rng.integers(length)
    numbers = (start + np.arange(count) * length // count) % length + 1
    copies = []
    for number in numbers:
        masked = np.zeros(length, dtype=np.bool_)
        masked[rng.permutation(length)[:number]] = True
        copies.append((masked, length / number))
    return copies


def elbo_terms(logprobs: Tensor, weights: Tensor, view: Tensor, count: int) -> Tensor:
    """``l_j``, the sum over the masked tokens of copy j of weight times log-probability.

    Args:
        logprobs: (N,) of masked tokens, of all copies.
        weights: (N,) 1 / t of the token's copy.
        view: (N,) int64 in 0..count-1, the token's copy.
        count: number of copies.

    Returns:
        (count,); their mean over the copies of one response is the estimate of its ELBO. Linear in ``logprobs``: given
        differences of log-probabilities it gives ``d_j = l_j(new) - l_j(old)``.
    """
    return sequence_sum(weights * logprobs, view, count)


def capped_exp(d: Tensor, cap: float = LOG_RATIO_LIMIT) -> Tensor:
    """``exp(d)``, continued beyond ``cap`` by its tangent there: finite, increasing, and never without gradient."""
    low = d.clamp(max=cap)
    return low.exp() * (1 + (d - low))


class Elbo(Grouped):
    """Base of the algorithms that maximise E[R], R = exp(B_new - B_old) A, or a bound of it; B is the ELBO.

    A loss is a mean over copies, and so over responses (``StepConstants.sequences`` counts copies).

    Raises:
        AlgorithmError: ``select`` drops tokens, which an ELBO has no use for.
    """

    Config: ClassVar[type[GroupedConfig]] = ElboConfig
    model: ClassVar[ModelKind] = "diffusion"
    config: ElboConfig

    def __init__(self, config: ElboConfig | None = None) -> None:
        super().__init__(config)
        if self.selector.needs_entropies:
            raise AlgorithmError(
                "it drops tokens, but an ELBO is a sum over all tokens of a response: set tokens: 100",
                key="select",
            )

    def baseline(self, rewards: Tensor) -> Tensor:
        """The mean of the group."""
        return centered(rewards)

    def views(self, trajectory: Trajectory, rng: np.random.Generator) -> Sequence[View]:
        """``n_t`` copies with some response tokens masked, the prompt never; ``extra["weight"]`` is 1 / t."""
        response = np.flatnonzero(trajectory.policy_mask)
        scale = 1.0 / len(response) if self.config.length_normalized else 1.0
        made = []
        for masked, weight in draw_masks(len(response), self.config.n_t, self.config.masks, rng):
            places = np.zeros(len(trajectory), dtype=np.bool_)
            places[response[masked]] = True
            weights = np.where(places, np.float32(weight * scale), np.float32(0))
            made.append(View(places, places, {"weight": weights}))
        return made

    def objective(self, d: Tensor, views: PackedViews, advantages: Tensor) -> Tensor:
        """(S,) terms to maximise the mean of, one a copy.

        Args:
            d: (S,) ``l_new - l_old`` of each copy, with gradient.
            views: the copies; ``views.response`` says which belong together.
            advantages: (S,).
        """
        raise NotImplementedError

    def loss(self, views: PackedViews, constants: StepConstants) -> LossOutput:
        """``-sum_j objective_j / copies of the update``. Sums: ``kl_old`` (k3 over masked tokens), and as means over
        copies ``elbo`` and ``log_ratio`` (|d|); ``capped`` is the number of copies beyond ``max_log_ratio``."""
        weight, view = torch.where(views.mask, views.extra["weight"], 0.0), views.sequence
        change = torch.where(views.mask, views.logprobs - views.old_logprobs, 0.0)
        d = elbo_terms(change, weight, view, views.sequences)
        loss = -self.objective(d, views, view_values(views.advantages, views)).sum() / constants.sequences
        of_copies = constants.tokens / constants.sequences  # sums are divided by tokens when they are logged
        return LossOutput(
            loss,
            {
                "kl_old": k3(change.detach()).sum(),
                "elbo": elbo_terms(views.logprobs.detach(), weight, view, views.sequences).sum() * of_copies,
                "log_ratio": d.detach().abs().sum() * of_copies,
                "capped": (d.detach() > self.config.max_log_ratio).sum() * float(constants.tokens),
            },
        )

    def describe(self) -> dict[str, Any]:
        """Copies of each response, and how they share graphs."""
        return {"copies of a response": self.config.n_t, "copies in one graph": self.atomic} | self.selector.describe()


def view_values(values: Tensor, views: PackedViews) -> Tensor:
    """(N,) values that are equal within a sequence -> (S,)."""
    return values.new_zeros(views.sequences).scatter(0, views.sequence, values)


def response_mean(d: Tensor, views: PackedViews) -> Tensor:
    """(S,) values of copies -> (S,) the mean over all copies of the same response, at each of them."""
    assert views.response is not None, "the learner says which copies belong together"
    count = views.sequences  # at least as many as there are responses
    copies = sequence_sum(d.new_ones(count), views.response, count).clamp(min=1)
    return (sequence_sum(d, views.response, count) / copies)[views.response]
