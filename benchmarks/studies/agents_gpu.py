"""The agents experiment on one GPU: SmolLM2-135M on the errands world, methods and seeds with one engine.

    rlpost bench agents_gpu --model PATH.gguf --out DIR --minutes 25
    rlpost bench agents_gpu --tiny --device cpu --out DIR             # to see that it runs

The base model is warmed up once on demonstrations of training scenarios until it has half learned them; every run
starts from it and has the same rollout budget. It is evaluated on other variants of the training scenarios;
``table.md`` has TGC and SGC with 95 % intervals. Started again with the same ``--out`` it goes on where it was cut
off. ``--unsafe`` runs the model's code without isolation, for hosts that give none. Left out: the ordering claim,
which rests on agents_cpu.py's many seeds.
"""

from __future__ import annotations

import os
from pathlib import Path

from rlpost.benchmarks.studies.agents_runs import arguments, run_all, with_openmp
from rlpost.recipe_files import find_recipe
from rlpost.session import first_model

RECIPE = find_recipe("agents_loop")
METHODS = {
    "LOOP token": ["algorithm={name: loop, epochs: 2, minibatches: 4}"],
    "LOOP trajectory": ["algorithm={name: loop, ratio: trajectory, epochs: 2, minibatches: 4}"],
    "RLOO": ["algorithm={name: rloo}"],
    "GRPO": ["algorithm={name: grpo}"],
}
SETTINGS = [
    "steps=10",
    "batch.tasks=12",
    "batch.group_size=8",
    "warm_start.steps=150",
    "warm_start.stop_accuracy=0.4",
    "eval.episodes=216",
    "eval.every=0",
    "eval.greedy=false",
    "rollout.max_turns=7",
    "rollout.max_new_tokens=200",
    "rollout.max_context=2560",
    "env.options.timeout_s=5.0",
]
GPU = ["learner.device=cuda", "engine.slots=128", "engine.gpu_memory_utilization=0.35", "learner.lora=null"]
GPU += ["learner.gradient_checkpointing=false", "learner.optimizer.lr=2.0e-5", "sync.transport=object_store"]
TINY = [
    "model={build: {hidden: 64, layers: 2, heads: 2, intermediate: 64}}",
    "steps=1",
    "batch.tasks=2",
    "batch.group_size=2",
    "rollout.max_turns=2",
    "rollout.max_new_tokens=8",
    "rollout.max_context=4096",
    "eval.episodes=3",
    "warm_start={data: env, examples: 4, steps: 1, batch_size: 2, lr: 1.0e-4}",
    "learner.lora={rank: 2, alpha: 4}",
    "engine.kv_cache_gib=0.25",
]


def main() -> None:
    """Parse and run."""
    parser = arguments(__doc__)
    parser.add_argument("--model", help="a .gguf file or a model folder")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--unsafe", action="store_true", help="no isolation of the model's code where there is none")
    args = parser.parse_args()
    if args.device == "cpu":
        with_openmp()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    overrides = [*SETTINGS, *(GPU if args.device == "cuda" else ["learner.device=cpu"])]
    overrides += [f"model.path={Path(args.model).resolve()}"] if args.model else []
    overrides += ["sandbox=unsafe"] if args.unsafe else []
    overrides += TINY if args.tiny else []
    methods = {name: METHODS[name] for name in args.methods or METHODS}
    run_all(RECIPE, [*overrides, *args.set], methods, args, first_model)


if __name__ == "__main__":
    main()
