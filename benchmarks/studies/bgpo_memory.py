"""Peak memory of one learner step against n_t: BGPO beside VRPO-OL, on a GPU with random weights.

    rlpost bench bgpo_memory --out runs/bgpo               # 135M parameters, response 512; about two minutes
    rlpost bench bgpo_memory --out runs/bgpo --shape 1b

What is counted is the most torch had allocated during a step, minus what was there before it (weights and optimizer
state; a first step has run). Each sequence is a pack of its own. How many tokens of a copy are masked, and so scored,
is drawn; so that each n_t may draw its heaviest copy, smaller ones run more steps: ``--copies`` of a response in all.
torch hands out blocks that are somewhat larger than what was asked for, more so where sizes vary; so bytes asked for
are counted too. Writes memory.json (every step's peaks) and memory.md. On a CPU the same is a test by tensor
accounting (tests/learner/test_diffusion.py). Left out: engines.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlpost.algorithms.registry import build, locate
from rlpost.benchmarks.studies.bgpo_world import trajectory
from rlpost.learner.batch import LearnerSetup, StepBatch
from rlpost.learner.config import LearnerConfig, OptimizerConfig
from rlpost.learner.learner import Learner
from rlpost.learner.tiny import add_mask_token, byte_tokenizer, masked_diffusion
from rlpost.rollout.engine import Sample

SHAPES = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
    "135m": {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "intermediate_size": 1536},
    "1b": {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "intermediate_size": 8192},
}
VOCABULARY = {"tiny": 264, "135m": 49152, "1b": 128256}


def model_folder(shape: str, folder: Path) -> Path:
    """A masked-diffusion Qwen2 of this shape with random weights."""
    tokenizer = byte_tokenizer()
    kind = masked_diffusion(add_mask_token(tokenizer), logit_shift=0)
    config = Qwen2Config(vocab_size=VOCABULARY[shape], tie_word_embeddings=True, **SHAPES[shape], **kind)
    config.num_key_value_heads = config.num_attention_heads
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rollouts(responses: int, prompt: int, length: int, step: int) -> StepBatch:
    """Random tokens, advantages of both signs."""
    rng = np.random.default_rng(step)
    nothing = np.full(length, -1.0, dtype=np.float32)
    made = [
        trajectory(rng.integers(0, 250, prompt).tolist(), sample, 0.0, False, 0, index)
        for index in range(responses)
        for sample in [Sample(rng.integers(0, 250, length).astype(np.int32), nothing, np.zeros(length, np.int32), True)]
    ]
    advantages = np.where(np.arange(responses) % 2, 1.0, -1.0)
    zeros = np.zeros(responses, np.int64)
    return StepBatch(made, advantages, zeros, step, 2, responses, prompt + length, seed=step)


def peak(folder: Path, name: str, n_t: int, options: argparse.Namespace) -> dict[str, Any]:
    """GiB beyond what was resident, and median seconds, over steps after the first; no number where memory ran out."""
    config = LearnerConfig(
        device=options.device, max_tokens_per_pack=2, optimizer=OptimizerConfig(lr=1e-6), gradient_checkpointing=False
    )
    learner = Learner(LearnerSetup(folder, config), algorithm=build(locate(name), {"n_t": n_t}))
    row: dict[str, Any] = {"algorithm": name, "n_t": n_t, "peak_gib": None, "asked_gib": None, "step_s": None}
    cuda = options.device == "cuda"
    steps = []
    try:
        learner.learn(rollouts(options.responses, options.prompt, options.length, 0))
        for step in range(max(1, options.copies // n_t)):
            gc.collect()
            before = memory(cuda)
            started = time.perf_counter()
            learner.learn(rollouts(options.responses, options.prompt, options.length, 1 + step))
            after = memory(cuda)
            steps.append({"step_s": time.perf_counter() - started})
            steps[-1] |= {f"{kind}_gib": after[kind][1] - before[kind][0] for kind in after}
        row |= {name: max(one[name] for one in steps) for name in ("peak_gib", "asked_gib") if cuda}
        row["step_s"] = statistics.median(one["step_s"] for one in steps)
    except torch.OutOfMemoryError:
        row["peak_gib"] = row["asked_gib"] = "out of memory"
    learner.close()
    del learner
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
    return row | {"steps": steps}


def memory(cuda: bool) -> dict[str, tuple[float, float]]:
    """GiB now, and at most since the last call: allocated ("peak"), and asked for ("asked")."""
    if not cuda:
        return {}
    torch.cuda.synchronize()
    counted, names = torch.cuda.memory_stats(), {"peak": "allocated_bytes.all", "asked": "requested_bytes.all"}
    torch.cuda.reset_peak_memory_stats()
    return {
        ours: tuple(counted[f"{name}.{when}"] / 2**30 for when in ("current", "peak")) for ours, name in names.items()
    }


def table(rows: list[dict[str, Any]]) -> str:
    """One line a number of copies."""
    names = list(dict.fromkeys(row["algorithm"] for row in rows))
    keys = {"peak_gib": "GiB beyond resident", "asked_gib": "GiB asked for", "step_s": "s a step"}
    columns = ["n_t", *(f"{name}, {title}" for title in keys.values() for name in names)]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    shown = lambda value: f"{value:.3f}" if isinstance(value, float) else str(value)  # noqa: E731
    for n_t in sorted({row["n_t"] for row in rows}):
        own = {row["algorithm"]: row for row in rows if row["n_t"] == n_t}
        cells = [shown(own[name][key]) if name in own else "" for key in keys for name in names]
        lines.append(f"| {n_t} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="a tiny shape and short responses")
    parser.add_argument("--shape", choices=list(SHAPES), default="135m")
    parser.add_argument("--responses", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--algorithms", nargs="+", default=["bgpo", "vrpo_ol"])
    parser.add_argument("--n-t", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--copies", type=int, default=64, help="copies of a response measured for each n_t")
    options = parser.parse_args()
    if options.tiny:
        options.shape, options.length, options.n_t, options.copies = "tiny", 32, [1, 4], 4
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        folder = model_folder(options.shape, Path(place))
        rows: list[dict[str, Any]] = []
        for name, n_t in itertools.product(options.algorithms, options.n_t):
            rows.append(peak(folder, name, n_t, options))
            write(rows, options)
    print(table(rows))


def write(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Both files, whole again after every row."""
    card = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    facts = {key: str(value) for key, value in vars(options).items()} | {"card": card, "torch": torch.__version__}
    facts["allocator"] = os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "")
    (options.out / "memory.json").write_text(json.dumps({"options": facts, "rows": rows}, indent=1))
    (options.out / "memory.md").write_text(f"{options.shape}, response {options.length}, {card}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
