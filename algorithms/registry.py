"""From the name in a recipe to an algorithm that keeps the contract: its options, what it needs, its plan.

Left out: line numbers of the recipe, and shipping a user's file (reward/plugins.py does that).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from rlpost.algorithms.base import Algorithm, AlgorithmError, ModelKind, Need, Plan, TrainerKind
from rlpost.algorithms.options import configured
from rlpost.reward.messages import nearest, shown
from rlpost.reward.plugins import Plugin
from rlpost.reward.registry import Registry

ALGORITHMS = Registry(
    "algorithm",
    {
        "loop": "rlpost.algorithms.loop:Loop",
        "grpo": "rlpost.algorithms.grpo:GRPO",
        "gspo": "rlpost.algorithms.grpo:GSPO",
        "rloo": "rlpost.algorithms.rloo:RLOO",
        "bgpo": "rlpost.algorithms.bgpo:BGPO",
        "vrpo_ol": "rlpost.algorithms.vrpo_ol:VRPOOL",
        "vrpo_two_pass": "rlpost.algorithms.vrpo_ol:TwoPass",
        "diffu_grpo": "rlpost.algorithms.diffu_grpo:DiffuGRPO",
        "expert_iteration": "rlpost.algorithms.expert_iteration:ExpertIteration",
        "rft": "rlpost.algorithms.rft:RFT",
        "scalebio": "rlpost.algorithms.scalebio:ScaleBiO",
    },
    Algorithm,
)


def locate(name: str, base: Path | None = None) -> Plugin:
    """The code that ``name`` means; see ``Registry.locate``."""
    return ALGORITHMS.locate(name, base)


def build(plugin: Plugin, options: Mapping[str, Any]) -> Algorithm:
    """An instance of the algorithm with the recipe's options (without ``name``).

    Raises:
        AlgorithmError: an unknown option (with the nearest known one), a value out of range, or a class that breaks the
            contract of ``Algorithm``.
        PluginError: the code cannot be imported, or is no Algorithm.
    """
    algorithm: Algorithm = configured(ALGORITHMS.load(plugin), options)
    _check_contract(algorithm)
    return algorithm


def _check_contract(algorithm: Algorithm) -> None:
    """What a misspelt attribute would change in silence."""
    name, needs, plan = type(algorithm).__name__, algorithm.needs, algorithm.plan
    if isinstance(needs, str) or not isinstance(needs, frozenset | set | tuple | list):
        raise AlgorithmError(f"{name}.needs must be a set, e.g. frozenset({{'old_logprobs'}}), not {shown(needs)}")
    known = {
        "needs": (get_args(Need), needs),
        "trainer": (get_args(TrainerKind), [algorithm.trainer]),
        "model": (get_args(ModelKind), [algorithm.model]),
        "atomic": (("view", "response"), [algorithm.atomic]),
    }
    for attribute, (allowed, values) in known.items():
        wrong = [value for value in values if value not in allowed]
        if wrong:
            raise AlgorithmError(f"{name}.{attribute}: there is no {wrong[0]!r}{nearest(str(wrong[0]), allowed)}")
    if not isinstance(plan, Plan):
        raise AlgorithmError(
            f"{name}.plan must be a Plan, not {shown(plan)}: write plan = Plan(epochs=2, minibatches=4) in the class, "
            "or a property that returns one (from rlpost.algorithms.base import Plan)"
        )
    if min(plan.epochs, plan.minibatches) < 1:
        raise AlgorithmError(f"{name}.plan: epochs and minibatches must be 1 or more, not {plan}")
