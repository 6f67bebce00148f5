"""Benchmarks, one module each: ``rlpost bench NAME --out DIR``, or ``python -m benchmarks.NAME`` from a checkout."""

from __future__ import annotations

BENCHMARKS = {
    "step": "one whole step against TRL's GRPOTrainer: time, memory; rollouts against raw vLLM; lags 0, 1, 2",
    "learner": "the learner alone: tokens a second, utilisation, memory, long contexts, packed against padded",
    "logprobs": "log-probs and entropies of the output head: time and memory against other ways",
    "publish": "publishing weights: GB a second, and how long sampling pauses",
    "scaling": "1, 2, 4, 8 GPUs: the learner, rollout workers, whole steps and publication, weak and strong",
    "d3s_cpu": "GRPO, PODS, D1S, D2S and D3S with the same rollouts on a CPU, over seeds",
    "d3s_gpu": "GRPO against GRPO + D3S on one GPU: Countdown and GSM8K",
    "d3s_learner": "the learner's seconds where only N % of the rollouts are kept",
    "optimizer_memory": "peak memory of a learning step by optimizer and by ScaleBiO layout, against arithmetic",
    "optimizers_convex": "every optimizer on one convex problem",
    "scalebio_quadratic": "ScaleBiO on a bilevel problem with a known answer",
    "scalebio_noise": "ScaleBiO on four sources, two of them broken, over seeds",
    "scalebio_real": "ScaleBiO on instruction data: weights, and fine-tuning by them against uniform",
    "engine_steps": "an engine's step: milliseconds by requests, the costliest kernels and functions",
    "engine_cpu": "the engine's own cost on a CPU, against vllm.LLM",
}
"""What ``rlpost bench`` offers, and what each measures."""
