"""Steps of TRL's GRPOTrainer: what ``step.py`` starts as a process of its own.

    python -m rlpost.benchmarks.step_trl MODEL PROMPTS.jsonl STEPS.jsonl --batch 32 ...

On a GPU vLLM is colocated and given the same bytes of KV cache as rlpost's; on a CPU transformers generates (vLLM in
TRL fails there). Masters are fp32 on both sides. A row is one step's times. Left out: logging, saving.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from rlpost.benchmarks.spread_reward import spread

GROUP = 8


def options(args: argparse.Namespace) -> dict[str, Any]:
    """GRPOConfig's arguments: everything that costs time and changes nothing is off."""
    on_gpu = args.device == "cuda"
    made: dict[str, Any] = {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": args.batch,
        "gradient_accumulation_steps": args.completions // args.batch,
        "num_generations": GROUP,
        "max_completion_length": args.tokens,
        "max_steps": args.steps,
        "beta": 0.0,
        "bf16": args.dtype == "bf16",
        "gradient_checkpointing": args.checkpointing,
        "use_liger_kernel": args.liger,
        "use_cpu": not on_gpu,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "learning_rate": 1e-6,
        "temperature": 1.0,
    }
    if on_gpu:
        made |= {"use_vllm": True, "vllm_mode": "colocate", "vllm_max_model_length": args.context}
        made |= {"vllm_gpu_memory_utilization": 0.3}
    return made


def fix_cache(kv_cache_gib: float) -> None:
    """Whatever TRL asks of vLLM, the KV cache is this large; TRL has no option for it."""
    import vllm

    original = vllm.LLM.__init__

    def with_cache(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **{"kv_cache_memory_bytes": int(kv_cache_gib * 2**30)} | kwargs)

    vllm.LLM.__init__ = with_cache


def train(args: argparse.Namespace) -> None:
    """Take the steps; each is written when it ends."""
    import torch
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    if args.device == "cpu":
        torch.set_num_threads(args.threads)
    else:
        fix_cache(args.kv_cache_gib)

    class Clock(TrainerCallback):
        began = 0.0

        def on_step_begin(self, *_args: object, **_kwargs: object) -> None:
            self.began = self.began or time.time()

        def on_step_end(self, *_args: object, **_kwargs: object) -> None:
            row = {"began": self.began}
            if torch.cuda.is_available():
                torch.cuda.synchronize()
                row["torch_peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
                torch.cuda.reset_peak_memory_stats()
            self.began = row["ended"] = time.time()  # the next begins here: data loading belongs to it
            with args.rows.open("a") as out:
                out.write(json.dumps(row) + "\n")

    dtype = torch.bfloat16 if args.device == "cpu" and args.dtype == "bf16" else torch.float32
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype),
        processing_class=AutoTokenizer.from_pretrained(args.model),
        reward_funcs=spread,
        args=GRPOConfig(**options(args)),
        train_dataset=load_dataset("json", data_files=str(args.prompts), split="train"),
        callbacks=[Clock()],
    )
    trainer.train()


def main() -> None:
    """Parse and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("prompts", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--liger", action="store_true")
    parser.add_argument("--kv-cache-gib", type=float, default=4.0)
    for name in ("batch", "completions", "tokens", "context", "steps", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    train(args)


if __name__ == "__main__":
    main()
