"""Optimizer steps on a CPU, rlpost against TRL's GRPOTrainer, turn by turn in one run on one machine.

Both train the same model on the same prompts with GRPO: N completions of at most L tokens in groups of 8, no gradient
checkpointing, no KL, one update, nothing logged. TRL generates with transformers; rlpost runs as always, with its
actors, vLLM, the object store and verified publication. Both are up all the time and take turns of a few steps each,
while the other sleeps, so that whatever else the machine does falls on both. A turn's wall time is all that counts; the
ratio is the median over turns of rlpost's seconds by those of TRL's turn just before.

    rlpost bench step_cpu --completions 8 --tokens 32
    rlpost bench step_cpu --completions 64 --tokens 64 --set rollout.workers=2 engine.threads=1
    rlpost bench step_cpu --completions 64 --tokens 64 --model path/to/SmolLM2-135M.gguf --dtype bf16

Left out: GPUs (step.py).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GROUP = 8

RECIPE = """
seed: 0
steps: {steps}
model: {{path: {model}}}
env:
  name: rlpost.envs.single_turn:SingleTurn
  options: {{reward: {here}/step_cpu.py:length_reward}}
data: {{train: {data}}}
batch: {{tasks: {tasks}, group_size: {group}}}
rollout: {{max_turns: 1, max_new_tokens: {tokens}, max_context: {context}, chat: plain, separator: ""}}
algorithm: {{name: grpo}}
learner: {{device: cpu, dtype: {dtype}, optimizer: {{lr: 1.0e-6}}}}
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


def trl_turns(model: str, prompts: Path, args: argparse.Namespace) -> None:
    """Train with TRL in this process: so many steps for every number on stdin; prints the seconds they took."""
    import torch
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(len(os.sched_getaffinity(0)))

    class Turns(TrainerCallback):
        left = 0

        def on_step_begin(self, *_args: object, **_kwargs: object) -> None:
            if self.left == 0:
                self.left = int(sys.stdin.readline())
                self.began = time.perf_counter()

        def on_step_end(self, *_args: object, **_kwargs: object) -> None:
            self.left -= 1
            if self.left == 0:
                print(time.perf_counter() - self.began, flush=True)

    bf16 = args.dtype == "bf16"
    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=args.completions,
        num_generations=GROUP,
        max_completion_length=args.tokens,
        max_steps=args.steps * (args.turns + 1),
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
        callbacks=[Turns()],
    )
    trainer.train()


class Peer:
    """TRL in a process of its own."""

    def __init__(self, model: str, prompts: Path, args: argparse.Namespace) -> None:
        command = [sys.executable, __file__, "--peer", model, str(prompts)]
        for name in ("completions", "tokens", "steps", "turns", "dtype"):
            command += [f"--{name}", str(getattr(args, name))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def turn(self, steps: int) -> float:
        """Seconds a step."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        while line := self._process.stdout.readline():
            try:
                return float(line) / steps
            except ValueError:
                continue  # a library's own words
        raise RuntimeError("TRL's process ended; run this file with --peer MODEL PROMPTS to see why")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


@contextmanager
def rlpost_controller(model: str, prompts: Path, args: argparse.Namespace, folder: Path) -> Iterator[object]:
    """A running session and its controller, whose rows land in ``folder``."""
    from rlpost.controller import Controller
    from rlpost.progress import Progress
    from rlpost.recipe import Recipe
    from rlpost.report import MetricsWriter, RolloutWriter
    from rlpost.runfolder import create
    from rlpost.session import open_session

    recipe = folder / "recipe.yaml"
    recipe.write_text(
        RECIPE.format(
            steps=args.steps * (args.turns + 1),
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
    out = create(folder / "run")
    loaded = Recipe.load(recipe, args.set)
    with Progress(total_steps=0) as progress, open_session(loaded, out, progress) as session:
        yield Controller(session, MetricsWriter(out.path), RolloutWriter(out.path, lambda ids: [], 0))


def summary(seconds: list[float]) -> dict[str, float]:
    """Median and spread, in seconds."""
    return {
        "median_s": statistics.median(seconds),
        "min_s": min(seconds),
        "max_s": max(seconds),
        "turns": len(seconds),
    }


def measure(args: argparse.Namespace, folder: Path) -> dict:
    """Both in turn, the first turn of each thrown away."""
    model = args.model or str(build_model(folder / "model"))
    if args.model and args.model.endswith(".gguf"):
        from rlpost.learner.config import ModelConfig
        from rlpost.learner.source import materialise

        model = str(materialise(ModelConfig(path=args.model), folder / "model", 0))
    prompts = folder / "prompts.jsonl"
    write_prompts(prompts)
    peer = Peer(model, prompts, args)
    theirs: list[float] = []
    ours: list[float] = []
    try:
        with rlpost_controller(model, prompts, args, folder) as controller:
            for turn in range(args.turns + 1):
                theirs.append(peer.turn(args.steps))
                began = time.perf_counter()
                for step in range(args.steps):
                    controller.step(turn * args.steps + step, ahead=step + 1 < args.steps)
                ours.append((time.perf_counter() - began) / args.steps)
                print(
                    f"turn {turn}: TRL {theirs[-1]:.3f} s a step, rlpost {ours[-1]:.3f} s", file=sys.stderr, flush=True
                )
    finally:
        peer.close()
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()][args.steps :]
    ratios = [own / other for own, other in zip(ours[1:], theirs[1:], strict=True)]
    return {
        "completions": args.completions,
        "tokens": args.tokens,
        "dtype": args.dtype,
        "set": args.set,
        "load": os.getloadavg()[0],
        "trl": summary(theirs[1:]),
        "rlpost": summary(ours[1:]),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "rlpost_parts_s": {
            key: statistics.median(row[key] for row in rows) for key in rows[0] if key.startswith("time/")
        },
    }


def main() -> None:
    """Parse, measure, print JSON and a Markdown row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--completions", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4, help="steps a turn")
    parser.add_argument("--turns", type=int, default=8, help="turns of each, after a first one that does not count")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="recipe keys for rlpost")
    parser.add_argument("--dtype", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--model", help="a model folder or .gguf; default: a 3.0 M Qwen2 built here")
    parser.add_argument("--json", type=Path, help="also write the result here")
    parser.add_argument("--peer", nargs=2, metavar=("MODEL", "PROMPTS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if args.peer:
        trl_turns(args.peer[0], Path(args.peer[1]), args)
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
