"""One optimizer step on a CPU, rlpost against TRL's GRPOTrainer, in one run on one machine.

Both train the same model on the same prompts with GRPO: N completions of at most L tokens in groups of 8, fp32, no
gradient checkpointing, no KL, one update, nothing logged. TRL generates with transformers; rlpost runs as always, with
its actors, vLLM, the object store and verified publication. The two are started in turn, several rounds, and the
ratio is of medians over all steps after the first three of each start.

    python benchmarks/step_cpu.py --completions 8 --tokens 32
    python benchmarks/step_cpu.py --completions 64 --tokens 64
    python benchmarks/step_cpu.py --completions 64 --tokens 64 --model path/to/SmolLM2-135M.gguf --dtype bf16

Left out: GPUs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WARM_UP = 3
GROUP = 8

RECIPE = """
seed: {seed}
steps: {steps}
model: {{path: {model}}}
env:
  name: envs.single_turn:SingleTurn
  options: {{reward: {here}/step_cpu.py:length_reward}}
data: {{train: {data}}}
batch: {{tasks: {tasks}, group_size: {group}}}
rollout: {{max_turns: 1, max_new_tokens: {tokens}, max_context: {context}, chat: plain, separator: ""}}
algorithm: {{name: grpo}}
learner: {{device: cpu, dtype: {dtype}, threads: 2, optimizer: {{lr: 1.0e-6}}}}
engine: {{dtype: {dtype}}}
eval: {{episodes: 0}}
save: {{rollouts: 0}}
"""


def length_reward(prompts: list, completions: list, **columns: object) -> list[float]:
    """Any reward with a spread: the share of distinct characters."""
    return [len(set(str(completion))) / 32 for completion in completions]


def build_model(folder: Path) -> Path:
    """A Qwen2 of 3.0 M parameters with a byte-level tokenizer."""
    from rlpost.learner.config import BuildConfig, ModelConfig
    from rlpost.learner.model import materialise

    build = BuildConfig(hidden=256, layers=3, heads=4, intermediate=960, initializer_range=0.05)
    return materialise(ModelConfig(build=build), folder, 0)


def write_prompts(path: Path) -> None:
    """64 short prompts."""
    path.write_text("".join(json.dumps({"id": str(i), "prompt": f"question {i:03d} = "}) + "\n" for i in range(64)))


def trl_step_seconds(model: str, prompts: Path, args: argparse.Namespace) -> list[float]:
    """Seconds of each TRL step in this process."""
    import torch
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(2)
    stamps: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_args: object, **_kwargs: object) -> None:
            stamps.append(time.perf_counter())

    bf16 = args.dtype == "bf16"
    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=args.completions,
        num_generations=GROUP,
        max_completion_length=args.tokens,
        max_steps=args.steps,
        beta=0.0,
        bf16=bf16,
        gradient_checkpointing=False,
        use_cpu=True,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        learning_rate=1e-6,
        temperature=1.0,
    )
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16 if bf16 else torch.float32)
    trainer = GRPOTrainer(
        model=policy,
        processing_class=AutoTokenizer.from_pretrained(model),
        reward_funcs=length_reward,
        args=config,
        train_dataset=load_dataset("json", data_files=str(prompts), split="train"),
        callbacks=[Clock()],
    )
    trainer.train()
    return [after - before for before, after in itertools.pairwise(stamps)]


def rlpost_rows(model: str, prompts: Path, args: argparse.Namespace, folder: Path, seed: int) -> list[dict]:
    """The rows of metrics.jsonl of one rlpost run."""
    recipe = folder / f"recipe-{seed}.yaml"
    recipe.write_text(
        RECIPE.format(
            seed=seed,
            steps=args.steps,
            model=model,
            here=Path(__file__).resolve().parent,
            data=prompts,
            tasks=args.completions // GROUP,
            group=GROUP,
            tokens=args.tokens,
            context=args.tokens + 64,
            dtype=args.dtype,
        )
    )
    out = folder / f"run-{seed}"
    subprocess.run([sys.executable, "-m", "rlpost.cli", "train", str(recipe), "--out", str(out)], check=True)
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def summary(seconds: list[float]) -> dict[str, float]:
    """Median and spread, in seconds."""
    return {
        "median_s": statistics.median(seconds),
        "min_s": min(seconds),
        "max_s": max(seconds),
        "steps": len(seconds),
    }


def measure(args: argparse.Namespace, folder: Path) -> dict:
    """Both, in turn."""
    model = args.model or str(build_model(folder / "model"))
    if args.model and args.model.endswith(".gguf"):
        from rlpost.learner.config import ModelConfig
        from rlpost.learner.model import materialise

        model = str(materialise(ModelConfig(path=args.model), folder / "model", 0))
    prompts = folder / "prompts.jsonl"
    write_prompts(prompts)
    peer: list[float] = []
    rows: list[dict] = []
    for round_ in range(args.rounds):
        command = [sys.executable, __file__, "--peer", model, str(prompts)]
        for name in ("completions", "tokens", "steps", "dtype"):
            command += [f"--{name}", str(getattr(args, name))]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        peer += json.loads(found.stdout.splitlines()[-1])[WARM_UP - 1 :]
        rows += rlpost_rows(model, prompts, args, folder, round_)[WARM_UP:]
    ours = [row["time/step_s"] for row in rows]
    parts = {key: statistics.median(row[key] for row in rows) for key in rows[0] if key.startswith("time/")}
    return {
        "completions": args.completions,
        "tokens": args.tokens,
        "dtype": args.dtype,
        "trl": summary(peer),
        "rlpost": summary(ours),
        "ratio": statistics.median(ours) / statistics.median(peer),
        "rlpost_parts_s": parts,
    }


def main() -> None:
    """Parse, measure, print JSON and a Markdown row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--completions", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--model", help="a model folder or .gguf; default: a 3.0 M Qwen2 built here")
    parser.add_argument("--json", type=Path, help="also write the result here")
    parser.add_argument("--peer", nargs=2, metavar=("MODEL", "PROMPTS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if args.peer:
        print(json.dumps(trl_step_seconds(args.peer[0], Path(args.peer[1]), args)))
        return
    with tempfile.TemporaryDirectory() as folder:
        result = measure(args, Path(folder))
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))
    print(
        f"| {args.completions} x {args.tokens} {args.dtype} | {result['trl']['median_s']:.3f} | "
        f"{result['rlpost']['median_s']:.3f} | {result['ratio']:.2f} |"
    )


if __name__ == "__main__":
    main()
