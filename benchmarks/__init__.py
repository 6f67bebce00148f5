"""Benchmarks, one module each, called one way: ``rlpost bench NAME ...``.

Those of a user's own machine lie here; ``studies/``, which made the tables of the documentation, is in a checkout only.
"""

from __future__ import annotations

import importlib.util

BENCHMARKS = {
    "step": "one whole step against TRL's GRPOTrainer: time, memory; rollouts against raw vLLM; lags 0, 1, 2",
    "step_cpu": "steps on a CPU against TRL's GRPOTrainer, turn by turn",
    "learner": "the learner alone: tokens a second, utilisation, memory, long contexts, packed against padded",
    "logprobs": "log-probs and entropies of the output head: time and memory against other ways",
    "models": "every family of models: learner, packing, ranks, engine, LoRA and checkpoints against the model itself",
    "publish": "publishing weights: GB a second, and how long sampling pauses",
    "scaling": "1, 2, 4, 8 GPUs: the learner, rollout workers, whole steps and publication, weak and strong",
    "engine_steps": "an engine's step: milliseconds by requests, the costliest kernels and functions",
    "optimizer_memory": "peak memory of a learning step by optimizer and by ScaleBiO layout, against arithmetic",
    "sandbox": "small programs a second in the sandbox",
}
"""What each measures."""
STUDIES = {
    "agents_cpu": "seven methods on the compact errands world on a CPU, the same rollouts each, over seeds",
    "agents_gpu": "SmolLM2-135M on the errands world, methods and seeds with one engine",
    "agents_scale": "episodes at scale: speed while environments think, and memory",
    "agreement": "verdicts of the judges against the field's own tools, item for item",
    "bgpo_gradients": "bias and spread of the diffusion estimators' gradients against n_t",
    "bgpo_learning": "BGPO, VRPO-OL and diffu-GRPO on 4x4 sudoku, over seeds",
    "bgpo_memory": "peak memory of a learner step against n_t",
    "bgpo_speed": "where a diffusion step's time goes, and what caches and thresholds give",
    "d3s_cpu": "GRPO, PODS, D1S, D2S and D3S with the same rollouts on a CPU, over seeds",
    "d3s_gpu": "GRPO against GRPO + D3S on one GPU: Countdown and GSM8K",
    "d3s_learner": "the learner's seconds where only N % of the rollouts are kept",
    "engine_cpu": "the engine's own cost on a CPU, against vllm.LLM",
    "eval_throughput": "rlpost eval on GSM8K against vLLM's own LLM.generate",
    "math_judges": "false positives and negatives of mathematics judges, ours and the field's, on the same rows",
    "optimizers_convex": "every optimizer on one convex problem",
    "quickstart_seeds": "the quickstart over several seeds, and with a learning rate of 0",
    "scalebio_noise": "ScaleBiO on four sources, two of them broken, over seeds",
    "scalebio_quadratic": "ScaleBiO on a bilevel problem with a known answer",
    "scalebio_real": "ScaleBiO on instruction data: weights, and fine-tuning by them against uniform",
}
"""What each measures; not in a wheel."""


def available() -> dict[str, str]:
    """The benchmarks that are installed here, and what each measures."""
    return BENCHMARKS | (STUDIES if importlib.util.find_spec(f"{__name__}.studies") else {})


def benchmark_module(name: str) -> str:
    """The module of an available benchmark, for ``python -m``."""
    return f"{__name__}.{name}" if name in BENCHMARKS else f"{__name__}.studies.{name}"
