"""The agents experiment on a CPU: seven methods on the compact errands world, the same rollouts each, several seeds.

    rlpost bench agents_cpu --out /tmp/agents --minutes 5          # again and again, until all runs are done

All runs start from one warm-started model, and evaluations before training are of that one; seeds differ in tasks drawn
and tokens sampled.

Left out: the GPU's experiment (agents_gpu.py).
"""

from __future__ import annotations

from rlpost.benchmarks.studies.agents_runs import arguments, plain_warm_start, run_all, with_openmp
from rlpost.recipe_files import find_recipe

RECIPE = find_recipe("agents_mini")
METHODS = {
    "LOOP token": ["algorithm={name: loop, clip: 0.2, epochs: 2, minibatches: 2}"],
    "LOOP trajectory": ["algorithm={name: loop, ratio: trajectory, clip: 0.2, epochs: 2, minibatches: 2}"],
    "LOOP RwNorm": ["algorithm={name: loop, clip: 0.2, epochs: 2, minibatches: 2, advantage: {std: sample}}"],
    "RLOO": ["algorithm={name: rloo}"],
    "GRPO": ["algorithm={name: grpo}"],
    "expert iteration": ["algorithm={name: expert_iteration, epochs: 2, minibatches: 2}"],
    "RFT": ["algorithm={name: rft, epochs: 4, minibatches: 80}", "steps=1", "batch.tasks=640", "batch.group_size=8"],
}
"""640 tasks x 8 rollouts are those of 40 steps of 16 x 8."""
TINY = [
    "steps=2",
    "batch.tasks=4",
    "batch.group_size=4",
    "eval.episodes=12",
    "warm_start.steps=2",
    "warm_start.examples=64",
]


def main() -> None:
    """Parse and run."""
    with_openmp()
    args = arguments(__doc__).parse_args()
    methods = {name: METHODS[name] for name in args.methods or METHODS}
    overrides = ["learner.threads=1", "engine.threads=1", *(TINY if args.tiny else []), *args.set]
    if args.tiny:
        methods.pop("RFT", None)
    run_all(RECIPE, overrides, methods, args, plain_warm_start)


if __name__ == "__main__":
    main()
