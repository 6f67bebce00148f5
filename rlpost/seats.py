"""A placement as Ray is asked for it: the cluster's nodes, a placement group, and the options of each actor.

Every bundle is pinned to its node, so that what ``rlpost explain`` printed is where the actors land. Left out: deciding
where (placement.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from rlpost.faults import RunError
from rlpost.placement import Placement, place
from rlpost.recipe import Recipe

RESERVE_S = 45.0
"""Seconds that GPUs which are there may stay taken by others."""


def gpu_nodes() -> list[tuple[str, int]]:
    """(id, GPUs) of each node of the cluster that has any, the head node first."""
    alive = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    alive.sort(key=lambda node: ("node:__internal_head__" not in node["Resources"], node["NodeID"]))
    return [(node["NodeID"], int(node["Resources"]["GPU"])) for node in alive]


def place_in_cluster(recipe: Recipe, rollouts: bool = True) -> Placement:
    """``place`` on the nodes of the cluster at ``cluster.address``, or on this machine where there is none such.

    Raises:
        RecipeError: see ``place``.
    """
    nodes = None if recipe.cluster.address is None else [gpus for _, gpus in gpu_nodes()]
    return place(recipe, nodes, rollouts)


class Seats:
    """Ray options of each actor of a placement: its GPUs, and the bundle they are in."""

    def __init__(self, placement: Placement, group: PlacementGroup | None = None) -> None:
        self._placement, self._group = placement, group

    def learner(self, rank: int) -> dict[str, Any]:
        """Of a learner rank."""
        own = [rank in bundle.ranks for bundle in self._placement.bundles]
        return self._options(own, self._placement.learner_gpus)

    def worker(self, index: int) -> dict[str, Any]:
        """Of a rollout worker."""
        own = [index in bundle.workers for bundle in self._placement.bundles]
        return self._options(own, self._placement.worker_gpus)

    def _options(self, bundles: list[bool], gpus: float) -> dict[str, Any]:
        """In the first bundle that is one's own."""
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": gpus}
        if self._group is not None and True in bundles:
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(self._group, bundles.index(True))
        return options


@contextlib.contextmanager
def reserve(placement: Placement) -> Iterator[Seats]:
    """Hold the GPUs of every bundle, each on its node, until the end; nothing on a CPU.

    Raises:
        RunError: others hold them.
    """
    if not placement.bundles:
        yield Seats(placement)
        return
    nodes = gpu_nodes()
    group = placement_group(
        [{"GPU": one.gpus, "CPU": len(one.ranks) + len(one.workers)} for one in placement.bundles],
        strategy="PACK",
        bundle_label_selector=[{"ray.io/node-id": nodes[one.node][0]} for one in placement.bundles],
    )
    try:
        if not group.wait(RESERVE_S):
            raise RunError(
                f"Ray did not give the GPUs for {'; '.join(one.who for one in placement.bundles)} within "
                f"{RESERVE_S:.0f} s: other actors of this cluster hold GPUs or CPUs of those nodes. `ray status` lists "
                "what is taken"
            )
        yield Seats(placement, group)
    finally:
        remove_placement_group(group)
