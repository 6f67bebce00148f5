"""D3S: dynamic dual-level down-sampling, of trajectories by the variance of their advantages and of tokens by |A| H.

    samples: argmax over subsets of size N of Var(A)      tokens: top K % by |A_i| H_{i,t}
    [N, K](p) = (1 - p) [N, K]_start + p [N, K]_end, p the run's progress

Advantages come from whole groups. D1S is ``tokens: 100``, D2S has constant schedules, PODS is ``scope: group, tokens:
100, renormalize: true``. With ``token_scope: pooled`` some responses keep few tokens or none: ``aggregate: token``
weighs all kept tokens alike, ``aggregate: sequence`` all responses. What the paper leaves open is an option here. Left
out: the entropies (the learner's, from the pass that gives old log-probs) and any saving of time, which comes from
dropped samples never being packed.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from torch import Tensor

from rlpost.algorithms.base import AlgorithmError
from rlpost.algorithms.selection import Selector
from rlpost.algorithms.variance_subset import max_variance_subset

__all__ = ["D3S", "D3SConfig", "max_variance_subset"]

Percent = Annotated[float, Field(gt=0, le=100)]
Schedule = Annotated[
    tuple[Percent, Percent],
    BeforeValidator(lambda value: value if isinstance(value, (list, tuple)) else (value, value)),
]
"""Percent at the start and at the end of the run, linear between; one number is a constant."""


class D3SConfig(BaseModel):
    """The keys of ``select`` beside ``name``. The paper's own constants of the schedules are not known."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    samples: Schedule = Field((40.0, 90.0), description="N: percent of the step's trajectories to keep, [start, end]")
    tokens: Schedule = Field((20.0, 100.0), description="K: percent of the kept samples' policy tokens, [start, end]")
    scope: Literal["batch", "group"] = Field("batch", description="choose over the whole step, or within each group")
    token_scope: Literal["pooled", "response"] = Field(
        "pooled", description="rank tokens over all kept samples, or within each (by entropy alone then)"
    )
    denominator: Literal["base", "kept", "full"] = Field(
        "base", description="loss divides by what is kept, by what there was, or as the algorithm does by itself"
    )
    renormalize: bool = Field(False, description="take advantages anew over what is kept of each group (PODS)")
    rule: Literal["variance", "random"] = Field(
        "variance", description="random keeps as many, drawn blindly (a control)"
    )

    @model_validator(mode="after")
    def _renormalize_within_groups(self) -> Self:
        if self.renormalize and (self.scope, self.rule) != ("group", "variance"):
            raise ValueError("renormalize compares within groups: it needs scope group and rule variance")
        return self


class D3S(Selector):
    """The selector; ``config`` is a D3SConfig."""

    Config: ClassVar[type[D3SConfig]] = D3SConfig

    def __init__(self, config: D3SConfig | None = None) -> None:
        options = D3SConfig() if config is None else config
        super().__init__(options)
        self.options = options
        self.needs_entropies = min(options.tokens) < 100
        self.renormalize = options.renormalize
        self.denominator = options.denominator

    def check_batch(self, groups: int, group_size: int) -> None:
        """A schedule must keep a trajectory at either end.

        Raises:
            AlgorithmError: N rounds to no trajectory at the start or at the end.
        """
        self._check_count(min(self.options.samples), group_size * (groups if self.options.scope == "batch" else 1))

    def samples(
        self,
        advantages: NDArray[np.float64],
        group_ids: NDArray[np.int64],
        eligible: NDArray[np.bool_],
        progress: float,
        seed: int,
    ) -> NDArray[np.int64]:
        """N is a percentage of all trajectories (of the step or of each group); where fewer are eligible, all those.

        Raises:
            AlgorithmError: N rounds to no trajectory, or ``progress`` is outside [0, 1].
        """
        percent = _scheduled(self.options.samples, progress)
        if percent >= 100:
            return np.flatnonzero(eligible)
        everything = np.arange(len(advantages))
        groups = [np.flatnonzero(group_ids == group) for group in np.unique(group_ids)]
        pools = [everything] if self.options.scope == "batch" else groups
        self._check_count(percent, max(len(pool) for pool in pools))
        generator = torch.Generator().manual_seed(seed % 2**63)
        kept = [self._keep(pool, percent, advantages, eligible, generator) for pool in pools]
        return np.sort(np.concatenate(kept))

    def _keep(
        self,
        pool: NDArray[np.int64],
        percent: float,
        advantages: NDArray[np.float64],
        eligible: NDArray[np.bool_],
        generator: torch.Generator,
    ) -> NDArray[np.int64]:
        candidates = pool[eligible[pool]]
        # A group that lost members to faults may round to none although the schedule is sound; it keeps one.
        count = max(1, _rounded(percent, len(pool)))
        if count >= len(candidates):
            return candidates
        if self.options.rule == "random":
            chosen = torch.randperm(len(candidates), generator=generator)[:count]
        else:
            chosen = max_variance_subset(torch.from_numpy(advantages[candidates]), count, generator)
        return candidates[chosen.numpy()]

    def _check_count(self, percent: float, largest: int) -> None:
        if _rounded(percent, largest) == 0:
            what = "a step" if self.options.scope == "batch" else "a group"
            raise AlgorithmError(
                f"asks for {percent:g} % of {what}'s {largest} trajectories, which is none; "
                f"give at least {50 / largest:.3g} %",
                key="select.samples",
            )

    def tokens(
        self, advantages: Tensor, entropies: Tensor | None, mask: Tensor, sequence: Tensor, progress: float
    ) -> Tensor:
        """The top K % of the policy tokens by |A| H, at least one (of each response with ``token_scope: response``);
        of equal keys the earlier token. ``mask`` itself where K is 100.

        Raises:
            AlgorithmError: no entropies, NaN among them, no policy token, or ``progress`` outside [0, 1].
        """
        percent = _scheduled(self.options.tokens, progress)
        if percent >= 100:
            return mask
        places = mask.nonzero().squeeze(1)
        key = self._key(advantages, entropies, places)
        order = torch.argsort(key, descending=True, stable=True)
        if self.options.token_scope == "pooled":
            chosen = places[order[: _at_least(percent, len(places))]]
        else:
            chosen = places[_top_of_each(order, sequence[places], percent)]
        selected = torch.zeros_like(mask)
        selected[chosen] = True
        return selected

    @staticmethod
    def _key(advantages: Tensor, entropies: Tensor | None, places: Tensor) -> Tensor:
        if entropies is None:
            raise AlgorithmError("tokens are ranked by entropy, but no entropies were given", "select.tokens")
        if not len(places):
            raise AlgorithmError("the kept samples have no policy token", "select.tokens")
        key = advantages[places].abs() * entropies[places]
        wrong = int((~torch.isfinite(key)).sum())
        if wrong:
            raise AlgorithmError(
                f"{wrong} of {len(places)} policy tokens have an entropy or advantage that is not finite, so "
                "they cannot be ranked; the policy's logits are broken (check the learning rate)",
                "select.tokens",
            )
        return key

    def describe(self) -> dict[str, Any]:
        """The two schedules' endpoints, and the options that change what is compared with what."""
        (n_start, n_end), (k_start, k_end) = self.options.samples, self.options.tokens
        return {
            "kept samples": f"{n_start:g} % -> {n_end:g} % of each {self.options.scope}",
            "kept tokens": f"{k_start:g} % -> {k_end:g} % ({self.options.token_scope})",
        }


def _scheduled(schedule: tuple[float, float], progress: float) -> float:
    if not 0 <= progress <= 1:
        raise AlgorithmError(f"progress must lie in [0, 1], not {progress}")
    start, end = schedule
    # Exact at both ends, and for a constant everywhere: 99.99999999999999 % would not be everything.
    return end if progress == 1 else start + progress * (end - start)


def _rounded(percent: float, size: int) -> int:
    """Half up."""
    return math.floor(percent * size / 100 + 0.5)


def _at_least(percent: float, size: int) -> int:
    """Rounded up, so never none of something; a schedule's rounding error does not count as one more."""
    return math.ceil(percent * size / 100 - 1e-9)


def _top_of_each(order: Tensor, sequence: Tensor, percent: float) -> Tensor:
    """Of each sequence, the first ``percent`` of its places in ``order``.

    Args:
        order: (n,) places, best first.
        sequence: (n,) the sequence of each place.
    """
    by_sequence = order[torch.argsort(sequence[order], stable=True)]
    counts = torch.bincount(sequence)
    first = counts.cumsum(0) - counts
    owner = sequence[by_sequence]
    rank = torch.arange(len(order), device=order.device) - first[owner]
    quota = torch.ceil(percent * counts.to(torch.float64) / 100 - 1e-9)
    return by_sequence[rank < quota[owner]]
