"""What test_placement.py runs as processes of their own: Ray clusters of two nodes. In one of them each node has eight
GPUs that are not there, and placements are reserved; in the other each has two CPUs, and a real run needs both.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from rlpost import seats
from rlpost.faults import RunError
from rlpost.recipe import Recipe


class Where:
    """An actor that knows its node and its GPUs."""

    def look(self) -> tuple[str, list[str]]:
        context = ray.get_runtime_context()
        return context.get_node_id(), context.get_accelerator_ids()["GPU"]


def on_two_nodes(recipe: str, out: str) -> None:
    """Train a recipe of four actors from the command line, in a cluster whose nodes hold two actors each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    cluster.add_node(num_cpus=2)
    command = [sys.executable, "-m", "rlpost.cli", "train", recipe, f"cluster.address={cluster.address}", "--out", out]
    subprocess.run(command, check=True, timeout=150)
    cluster.shutdown()


def main() -> None:
    """Write for every recipe on stdin where its actors found themselves."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 16, "num_gpus": 8})
    cluster.add_node(num_cpus=16, num_gpus=8)
    ray.init(address=cluster.address, log_to_driver=False)
    nodes = [name for name, _ in seats.gpu_nodes()]
    found: dict[str, object] = {"nodes": [gpus for _, gpus in seats.gpu_nodes()]}
    for number, values in enumerate(json.load(sys.stdin)):
        recipe = Recipe.model_validate(values | {"cluster": {"address": cluster.address}})
        placement = seats.place_in_cluster(recipe)
        with seats.reserve(placement) as reserved:
            options = {f"learner rank {rank}": reserved.learner(rank) for rank in range(recipe.learner.ranks)}
            options |= {f"rollout worker {index}": reserved.worker(index) for index in range(recipe.rollout.workers)}
            actors = {name: ray.remote(Where).options(**how).remote() for name, how in options.items()}
            seen = dict(
                zip(actors, ray.get([actor.look.remote() for actor in actors.values()], timeout=60), strict=True)
            )
            found[str(number)] = {name: [nodes.index(node), *sorted(gpus)] for name, (node, gpus) in seen.items()}
            seats.RESERVE_S = 1.0
            if number == 0:
                try:
                    with seats.reserve(placement):
                        found["twice"] = "reserved"
                except RunError as error:
                    found["twice"] = str(error)
            seats.RESERVE_S = 30.0
            for actor in actors.values():
                ray.kill(actor)
    Path(sys.argv[1]).write_text(json.dumps(found))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    on_two_nodes(*sys.argv[1:]) if len(sys.argv) > 2 else main()
