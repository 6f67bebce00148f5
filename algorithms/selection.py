"""Selectors: which trajectories and tokens of a step are learned from. They compose with any policy-gradient algorithm.

``select: {name: ...}`` in a recipe names one. The base class keeps everything.
Left out: the reject threshold on |advantage| (the algorithm applies it first, and a selector chooses among the rest).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import Tensor

from rlpost.algorithms.base import AlgorithmError
from rlpost.algorithms.options import configured
from rlpost.reward.messages import nearest
from rlpost.reward.plugins import PluginError
from rlpost.reward.registry import Registry


class Selector:
    """Base class of selectors; keeps every eligible trajectory and every token.

    Args:
        config: an instance of ``Config``, parsed from the recipe's ``select`` keys without ``name``.
    """

    Config: ClassVar[type[BaseModel] | None] = None
    needs_entropies: bool = False
    """Whether ``tokens`` reads entropies of the policy at the start of the step."""
    renormalize: bool = False
    """Whether advantages are taken anew over the kept trajectories of each group (PODS)."""
    denominator: Literal["base", "kept", "full"] = "base"
    """What the loss divides by where something was dropped; "base" leaves it to the algorithm."""

    def __init__(self, config: Any = None) -> None:
        self.config = config

    def check_batch(self, groups: int, group_size: int) -> None:
        """See ``Algorithm.check_batch``."""

    def samples(
        self,
        advantages: NDArray[np.float64],
        group_ids: NDArray[np.int64],
        eligible: NDArray[np.bool_],
        progress: float,
        seed: int,
    ) -> NDArray[np.int64]:
        """Ascending indices into the step's M trajectories, a subset of the eligible ones. All arrays are (M,)."""
        return np.flatnonzero(eligible)

    def tokens(
        self, advantages: Tensor, entropies: Tensor | None, mask: Tensor, sequence: Tensor, progress: float
    ) -> Tensor:
        """(N,) bool, a subset of ``mask``; see ``Algorithm.select_tokens``."""
        return mask

    def describe(self) -> dict[str, Any]:
        """Derived facts for ``rlpost explain``."""
        return {}


SELECTORS = Registry("selector", {"d3s": "rlpost.algorithms.d3s:D3S"}, Selector)


def build_selector(options: Mapping[str, Any] | None) -> Selector:
    """The selector that the recipe's ``select`` names; None keeps everything.

    Raises:
        AlgorithmError: no name, an unknown name or key, or a value out of range.
    """
    if options is None:
        return Selector()
    if "name" not in options:
        raise AlgorithmError(f"the key 'name' is required{nearest('', SELECTORS.names)}", key="select")
    try:
        found = SELECTORS.load(options["name"])
    except PluginError as error:
        raise AlgorithmError(str(error), key="select.name") from None
    selector: Selector = configured(found, {k: v for k, v in options.items() if k != "name"}, at=("select",))
    return selector


def selection_report(
    advantages: NDArray[np.float64], group_ids: NDArray[np.int64], kept: NDArray[np.int64]
) -> dict[str, float]:
    """Counts and spread before and after sample selection; variances are of the population (0 where nothing is kept).

    Args:
        advantages: (M,) of the whole step.
        group_ids: (M,).
        kept: indices that were kept.
    """
    groups = [advantages[group_ids == group] for group in np.unique(group_ids)]
    without_spread = sum(bool((values == values[0]).all()) for values in groups)
    return {
        "select/samples": float(len(advantages)),
        "select/kept": float(len(kept)),
        "select/groups": float(len(groups)),
        "select/kept_groups": float(len(np.unique(group_ids[kept]))),
        "select/zero_variance_groups": without_spread / max(1, len(groups)),
        "select/variance_before": float(advantages.var()) if len(advantages) else 0.0,
        "select/variance_after": float(advantages[kept].var()) if len(kept) else 0.0,
    }
