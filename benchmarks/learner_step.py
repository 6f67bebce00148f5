"""Seconds and memory of one learning step on made-up rollouts; no Ray, no engine.

    python benchmarks/learner_step.py --layers 24 --hidden 896 --heads 14 --kv-heads 2 --intermediate 4864 \
        --sequences 256 --prompt 190 --completion 256

Prints one JSON object: the median of the steps after the first, tokens a second, the peak of CUDA memory, and the time
of one publication. Left out: rollouts (what an engine costs is another benchmark).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from algorithms import registry
from rlpost.learner.batch import LearnerSetup, StepBatch
from rlpost.learner.config import LearnerConfig
from rlpost.learner.learner import Learner
from rlpost.learner.tiny import byte_tokenizer
from rollout.trajectory import StopReason, Trajectory, Turn


def model_folder(folder: Path, options: argparse.Namespace) -> Path:
    """A Qwen2 of the given shape with random weights."""
    config = Qwen2Config(
        vocab_size=options.vocabulary,
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=options.kv_heads,
        intermediate_size=options.intermediate,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def rollouts(options: argparse.Namespace, step: int) -> StepBatch:
    """Random tokens; completions end at random between half the length and the whole."""
    rng = np.random.default_rng(step)
    made = []
    for index in range(options.sequences):
        length = options.prompt + int(rng.integers(options.completion // 2, options.completion + 1))
        mask = np.arange(length) >= options.prompt
        made.append(
            Trajectory(
                token_ids=rng.integers(0, options.vocabulary, length).astype(np.int32),
                policy_mask=mask,
                rollout_logprobs=np.where(mask, -10.0, np.nan).astype(np.float32),
                versions=np.where(mask, 0, -1).astype(np.int32),
                turns=[Turn(options.prompt, length)],
                reward=0.0,
                reward_parts={},
                success=False,
                stop=StopReason.DONE,
                task_id="t",
                group_id=index // 8,
                index=index % 8,
                seed=0,
            )
        )
    groups = np.arange(options.sequences, dtype=np.int64) // 8
    size = options.sequences
    return StepBatch(made, rng.normal(size=size), groups, step, 100, size, options.prompt + options.completion)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {
        "layers": 4, "hidden": 256, "heads": 4, "kv-heads": 4, "intermediate": 768, "vocabulary": 264, "sequences": 8,
        "prompt": 20, "completion": 32, "minibatches": 1, "epochs": 1, "steps": 4, "max-tokens-per-pack": 16384,
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--checkpointing", action="store_true")
    options = parser.parse_args()
    config = LearnerConfig(
        dtype=options.dtype,
        gradient_checkpointing=options.checkpointing,
        max_tokens_per_pack=options.max_tokens_per_pack,
    )
    algorithm = registry.build(registry.locate("loop"), {"epochs": options.epochs, "minibatches": options.minibatches})
    with tempfile.TemporaryDirectory() as place:
        folder = model_folder(Path(place), options)
        learner = Learner(LearnerSetup(folder, config), algorithm=algorithm)
    seconds, tokens = [], 0
    for step in range(options.steps):
        batch = rollouts(options, step)
        tokens = sum(len(one) for one in batch.trajectories)
        started = time.perf_counter()
        result = learner.learn(batch)
        seconds.append(time.perf_counter() - started)
    started = time.perf_counter()
    update = learner.weights(1)
    publish = time.perf_counter() - started
    median = statistics.median(seconds[1:])
    print(
        json.dumps(
            {
                "device": str(learner.policy.device),
                "step_s": round(median, 4),
                "steps_s": [round(one, 4) for one in seconds],
                "tokens_per_s": round(tokens / median),
                "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if torch.cuda.is_available() else None,
                "publish_s": round(publish, 4),
                "publish_gib": round(sum(array.nbytes for array in update.payload) / 2**30, 3),
                "updates": result.metrics["updates"],
            }
        )
    )


if __name__ == "__main__":
    main()
