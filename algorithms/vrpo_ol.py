"""VRPO-OL: the exact exponential of the mean, exp(mean_j d_j) A, which BGPO bounds; and the same in constant memory.

``VRPOOL`` holds the graphs of all n_t copies of a response at once. ``TwoPass`` has the same gradient,
exp(mean d) A mean_j grad d_j, without that: a pass without gradient finds exp(mean d), then each copy is weighed with
it. It costs one more forward pass of each copy, and is the control for BGPO's bound. Left out: clipping and a KL.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from rlpost.algorithms.base import PackedViews
from rlpost.algorithms.elbo import Elbo, capped_exp, elbo_terms, response_mean, view_values

RATIO = "response_ratio"


class VRPOOL(Elbo):
    """All copies of a response in one graph."""

    atomic: ClassVar[Literal["view", "response"]] = "response"

    def objective(self, d: Tensor, views: PackedViews, advantages: Tensor) -> Tensor:
        """The response's own term, at each of its copies."""
        return capped_exp(response_mean(d, views), self.config.max_log_ratio) * advantages


class TwoPass(Elbo):
    """A copy at a time, weighed with the ratio of its response."""

    preview: ClassVar[bool] = True
    allows_lag: ClassVar[bool] = False

    def preview_extra(self, views: PackedViews) -> dict[str, Tensor]:
        """The slope of exp at each response's mean d."""
        d = elbo_terms(
            (views.logprobs - views.old_logprobs) * views.mask, views.extra["weight"], views.sequence, views.sequences
        )
        slope = response_mean(d, views).clamp(max=self.config.max_log_ratio).exp()
        return {RATIO: slope[views.sequence]}

    def objective(self, d: Tensor, views: PackedViews, advantages: Tensor) -> Tensor:
        """Linear in d, with the gradient of the exact objective; its value is the exact one only where d is 0."""
        ratio = view_values(views.extra[RATIO], views) if RATIO in views.extra else 1.0
        return ratio * (1 + d) * advantages
