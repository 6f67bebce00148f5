"""(a, b, f) One whole optimizer step, rlpost against TRL's GRPOTrainer, with vLLM in both, side by side on one GPU.

Both train the same model of random weights on the same prompts with GRPO: N completions of L tokens in groups of 8, no
KL, one update. Contestants run one after another, each in a process of its own, and a row is written as each ends:

    rlpost       learner and engine as two actors that share the GPU; lags 0, 1, 2 in one session
    trl:B        GRPOTrainer, vLLM colocated, per-device batch B; trl:B:ckpt with gradient checkpointing, trl:B:liger
    raw          vllm.LLM.generate on the same requests; rlpost's whole rollout phase is held against it

    rlpost bench step --out DIR                                       # 7 minutes on an H100, 10 on one just booted
    rlpost bench step --out DIR --contestants trl:16 trl:64 trl:32:ckpt trl:32:liger
    rlpost bench step --out DIR --device cpu --completions 8 --tokens 32 --contestants rlpost trl:8

Memory is the whole device's, polled through NVML, above what was in use before; ``peak_gib`` over the measured steps.
Left out: a second GPU.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rlpost.benchmarks.harness import Results, call, gpu_environment, median, parser
from rlpost.benchmarks.memory import MemoryWatch

GROUP = 8
RECIPE = """
steps: {run_steps}
model: {{path: {model}}}
env:
  name: rlpost.envs.single_turn:SingleTurn
  options: {{reward: {here}/spread_reward.py:spread}}
data: {{train: {prompts}}}
batch: {{tasks: {tasks}, group_size: {group}}}
rollout: {{workers: {workers}, max_turns: 1, max_new_tokens: {tokens}, max_context: {context}, chat: plain,
  separator: ""}}
algorithm: {{name: grpo}}
learner: {{device: {device}, dtype: {dtype}, threads: {threads}, max_tokens_per_pack: {pack},
  gradient_checkpointing: {checkpointing}, lora: {lora}, optimizer: {{lr: 1.0e-6}}}}
engine: {{dtype: {dtype}, slots: {slots}, kv_cache_gib: {cache_gib}, gpu_memory_utilization: 0.3,
  sleep: {sleep}, threads: {threads}}}
eval: {{episodes: 0}}
save: {{rollouts: 0}}
"""


def write_prompts(path: Path, count: int, tokens: int) -> None:
    """Distinct prompts of this many bytes, each a token."""
    with path.open("w") as out:
        for number in range(count):
            text = f"question {number:04d}: " + "what is the sum of the digits of this number? " * 10
            out.write(json.dumps({"id": str(number), "prompt": text[:tokens]}) + "\n")


def share_of_worker(args: argparse.Namespace) -> dict[str, Any]:
    """Requests and KV cache of each of rlpost's workers; together they have what a peer's one engine has."""
    rank = getattr(args, "lora", 0)
    return {
        "lora": f"{{rank: {rank}}}" if rank else "null",
        "slots": math.ceil(args.completions / args.workers),
        "cache_gib": args.kv_cache_gib / args.workers,
    }


class Comparison:
    """One model, one set of prompts, and the contestants on them."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args = args
        self.folder = folder
        shape = "tiny" if args.tiny or args.device == "cpu" else args.shape
        self.model = args.model or str(model_in_child(shape, folder / "model", args.device))
        self.prompts = folder / "prompts.jsonl"
        write_prompts(self.prompts, max(64, args.completions), args.prompt)
        self.context = args.prompt + args.tokens + 8
        facts = ["completions", "tokens", "prompt", "kv_cache_gib", "dtype", "pack", "workers", "checkpointing"]
        facts += ["sleep", "eager"]
        self.results = Results("step", args.out, {"model": args.model or shape} | {f: getattr(args, f) for f in facts})

    def run(self, name: str) -> None:
        """One contestant; its row says so where it fails."""
        rows = self.args.out / f"step-{name.replace(':', '-')}.jsonl"
        rows.unlink(missing_ok=True)
        command = self.command(name, rows)
        began = time.time()
        with MemoryWatch() as watch:
            ended_well, why = call(command, self.args.limit, self.args.out / f"step-{name.replace(':', '-')}.log")
            ended = time.time()
            found = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
            for row in self.rows_of(name, found):
                times = row.pop("window", (began, ended))
                peaks = {"peak_gib": watch.peak_gib(*times), "peak_with_start_gib": watch.peak_gib(began, ended)}
                self.results.add(contestant=name, **row, **peaks)
        if not ended_well:
            self.results.add(contestant=name, failed=why)

    def command(self, name: str, rows: Path) -> list[str]:
        """What starts a contestant."""
        args = self.args
        kind, *how = name.split(":")
        if kind == "rlpost":
            recipe = self.folder / "recipe.yaml"
            here, tasks = Path(__file__).resolve().parent, args.completions // GROUP
            values = vars(args) | {"model": self.model, "prompts": self.prompts, "context": self.context}
            values |= {"run_steps": 10 if args.eager else 1000}  # a long run compiles the learner's layers
            values |= {"here": here, "tasks": tasks, "group": GROUP, "sleep": str(args.sleep).lower()}
            values |= share_of_worker(args)
            recipe.write_text(RECIPE.format(**values))
            script = ["rlpost.benchmarks.step_rlpost", recipe, rows, "--lags", *args.lags]
            script += ["--warm-up", args.warm_up, "--steps", args.steps]
        else:
            peer = "step_trl" if kind == "trl" else "rollout_raw"
            script = [f"rlpost.benchmarks.{peer}", self.model, self.prompts, rows]
            script += ["--steps", args.warm_up + args.steps, "--context", self.context]
            for option in ("device", "dtype", "completions", "tokens", "threads", "kv_cache_gib"):
                script += [f"--{option.replace('_', '-')}", getattr(args, option)]
            if kind == "trl":
                script += ["--batch", how[0], *(["--checkpointing"] if "ckpt" in how else [])]
                script += ["--liger"] if "liger" in how else []
        return [sys.executable, "-P", "-m", *(str(word) for word in script)]

    def rows_of(self, name: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Medians after the warm-up, one row a lag."""
        if name != "rlpost":
            kept = found[self.args.warm_up :]
            return [self.row(kept, None)] if kept else []
        rows = []
        for lag in self.args.lags:
            kept = [row for row in found if row["lag_asked"] == lag][self.args.warm_up + lag :]
            rows += [self.row(kept, lag)] if kept else []
        alone = [row for row in found if row["lag_asked"] == -1][self.args.warm_up :]
        return rows + ([self.row(alone, None)] if alone else [])

    def row(self, kept: list[dict[str, Any]], lag: int | None) -> dict[str, Any]:
        """One contestant's medians."""
        seconds = [row["ended"] - row["began"] for row in kept]
        made: dict[str, Any] = {"lag": lag, "steps": len(kept)}
        made |= {"min_s": min(seconds), "max_s": max(seconds), "window": (kept[0]["began"], kept[-1]["ended"])}
        for key in ("time/rollout_s", "time/learn_s", "time/sync_s", "memory/learner_peak_gib", "torch_peak_gib"):
            if key in kept[0]:
                made[key] = median([row[key] for row in kept])
        if "tokens" in kept[0]:
            made["rollout_tokens_per_s"] = median([row["tokens"] / (row["ended"] - row["began"]) for row in kept])
        else:
            made["step_s"] = median(seconds)
        if "tokens/rollout" in kept[0]:
            made["gap/logprob_abs"] = max(row["gap/logprob_abs"] for row in kept)
        return made

    def compare(self) -> None:
        """Ratios to the fastest TRL and to the raw engine."""
        timed = [row for row in self.results.rows if "step_s" in row]
        peers = [row for row in timed if row["contestant"].startswith("trl")]
        best = min(peers, key=lambda row: row["step_s"], default=None)
        rates = {
            row["contestant"]: row["rollout_tokens_per_s"] for row in self.results.rows if "rollout_tokens_per_s" in row
        }
        if {"rlpost", "raw"} <= set(rates):
            self.results.add(contestant="ratio", rollout_ratio=rates["rlpost"] / rates["raw"])
        for row in [row for row in timed if row["contestant"] == "rlpost"]:
            ratios: dict[str, Any] = {"lag": row["lag"]}
            if best is not None:
                ratios |= {"step_ratio": row["step_s"] / best["step_s"], "against": best["contestant"]}
                if row["peak_gib"] and best["peak_gib"]:
                    ratios["memory_ratio"] = row["peak_gib"] / best["peak_gib"]
            self.results.add(contestant="ratio", **ratios)


def model_in_child(shape: str, folder: Path, device: str) -> Path:
    """Built in a process of its own, so that this one never holds a GPU context."""
    code = "import sys; from pathlib import Path; from rlpost.benchmarks.harness import model_folder as make; "
    code += "make(sys.argv[1], Path(sys.argv[2]), sys.argv[3])"
    subprocess.run([sys.executable, "-c", code, shape, str(folder), device], check=True)
    return folder


def main() -> None:
    """Parse, run, compare."""
    made = parser(__doc__)
    made.add_argument("--contestants", nargs="+", default=["rlpost", "trl:32", "raw"])
    made.add_argument("--lags", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--shape", default="0.5b")
    made.add_argument("--model", help="a model folder, instead of a shape with random weights")
    made.add_argument("--dtype", default=None, choices=("fp32", "bf16"), help="default: bf16 on a GPU, fp32 on a CPU")
    for name, default in {
        "completions": 256, "tokens": 256, "prompt": 190, "warm-up": 2, "steps": 6, "threads": 2, "pack": 8192,
        "workers": 1,
    }.items():  # fmt: skip
        made.add_argument(f"--{name}", type=int, default=default)
    made.add_argument(
        "--kv-cache-gib", type=float, default=None, help="of both sides; default: 4 on a GPU, 0.25 on a CPU"
    )
    made.add_argument("--checkpointing", default="false", choices=("false", "true", "offload"), help="rlpost's learner")
    made.add_argument(
        "--sleep", action="store_true", help="rlpost's engine sleeps while the learner works (lag 0 only)"
    )
    made.add_argument("--lora", type=int, default=0, help="rlpost's learner trains adapters of this rank")
    made.add_argument("--eager", action="store_true", help="rlpost's learner is not compiled")
    made.add_argument("--limit", type=float, default=420, help="seconds a contestant may take")
    args = made.parse_args()
    on_gpu = args.device == "cuda"
    args.dtype = args.dtype or ("bf16" if on_gpu else "fp32")
    args.kv_cache_gib = args.kv_cache_gib or (4.0 if on_gpu else 0.25)
    if args.tiny:
        args.completions, args.tokens, args.prompt, args.steps, args.warm_up = 16, 8, 24, 2, 1
        args.contestants = [name.replace("trl:32", "trl:16") for name in args.contestants]
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if on_gpu:
        gpu_environment()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        comparison = Comparison(args, Path(folder))
        for contestant in args.contestants:
            comparison.run(contestant)
        comparison.compare()


if __name__ == "__main__":
    main()
