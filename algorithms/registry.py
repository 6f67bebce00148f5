"""From the name in a recipe to an algorithm: short names, a user's own class, options checked in words.

Left out: line numbers of the recipe, and shipping a user's file (reward/plugins.py does that).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlpost.algorithms.base import Algorithm, AlgorithmError
from rlpost.algorithms.options import nearest, parse_options
from rlpost.reward.plugins import Plugin

ALGORITHMS = {
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
}
"""Short names."""


def locate(name: str, base: Path | None = None) -> Plugin:
    """The code that ``name`` means: a short name, ``module:Class``, or ``file.py:Class`` (looked up below ``base``).

    Raises:
        AlgorithmError: neither a short name nor of that form; the message gives the nearest short name.
        PluginError: the file does not exist.
    """
    if name in ALGORITHMS:
        return Plugin(ALGORITHMS[name])
    if ":" not in name:
        raise AlgorithmError(
            f"no algorithm is called '{name}'{nearest(name, ALGORITHMS)}; your own is module:Class or file.py:Class",
            key="name",
        )
    return Plugin.locate(name, base)


def build(plugin: Plugin, options: Mapping[str, Any]) -> Algorithm:
    """An instance of the algorithm with the recipe's options (without ``name``).

    Raises:
        AlgorithmError: not an Algorithm; an unknown option (with the nearest known one); a value out of range.
        PluginError: the code cannot be imported.
    """
    found = plugin.load()
    if not (isinstance(found, type) and issubclass(found, Algorithm)):
        raise AlgorithmError(f"{plugin.target} is not a subclass of rlpost.algorithms.base.Algorithm", key="name")
    if found.Config is not None:
        return found(parse_options(found.Config, options))
    if options:
        raise AlgorithmError(
            f"{found.__name__} takes no options, but was given {', '.join(options)}",
            key=next(iter(options)),
        )
    return found()
