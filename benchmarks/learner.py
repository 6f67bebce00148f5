"""(c, g) The learner alone: tokens a second, model-FLOP utilisation, memory; packed against padded; the scoring pass.

    rlpost bench learner --out DIR                                  # 7 minutes on an H100
    rlpost bench learner --out DIR --parts 1.5b:4096:compiled 0.6b:65536:checkpoint:compiled
    rlpost bench learner --out DIR --device cpu --tiny

A part is SHAPE:LENGTH and options: ``compiled`` (torch.compile), ``checkpoint`` or ``offload`` (gradient
checkpointing), ``score`` (what the pass for old log-probs costs, which steps of several updates have), ``profile``
(also the ten costliest kernels), ``pack=N`` (tokens of a forward pass; default: 16,384 or the length). LENGTH is
tokens a sequence, or ``rollouts`` (190 + 128..256, as in step.py), or ``skewed``, lengths of which the longest is 5.6
times the mean, or ``padded``, the same with every row as long as the longest. Every step is one update over
``--tokens`` tokens, of which all after the first are scored and learned from (in ``rollouts`` those of the prompt are
not).

MFU counts 6 FLOPs a weight and token and 6 L² x heads x size a layer for causal attention, nothing twice: recomputation
is the learner's own affair. Parts of one model and one way to hold it run in one process, models one after another.
Left out: rollouts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rlpost.benchmarks.harness import Results, call, costliest, flops, median, model_folder, parser

LONGER = 5.6
PARTS = [
    "1.5b:4096:compiled", "1.5b:1024:compiled", "1.5b:16384:compiled", "1.5b:4096:compiled:profile",
    "0.5b:rollouts:compiled", "0.5b:rollouts:compiled:pack=8192:score", "0.5b:4096:compiled", "0.5b:1024:compiled",
    "0.5b:16384:compiled", "0.5b:skewed:compiled", "0.5b:padded:compiled", "0.6b:65536:checkpoint:compiled",
    "0.5b:rollouts", "0.5b:4096:profile", "0.6b:65536:offload:compiled", "1.5b:4096", "1.5b:65536:checkpoint:compiled",
    "0.5b:65536:checkpoint:compiled",
]  # fmt: skip
HELD = ("compiled", "checkpoint", "offload", "profile")
"""Options that need a process of their own; after a profile, launches of kernels may stay slower."""
TINY = ["tiny:rollouts", "tiny:64:checkpoint", "tiny:64:offload:score", "tiny:skewed", "tiny:padded", "tiny:64:profile"]


def sequences(kind: str, tokens: int, tiny: bool) -> list[tuple[int, int]]:
    """(prompt, whole length) of each sequence of a step."""
    rng = np.random.default_rng(0)
    if kind == "rollouts":
        prompt, low, high, count = (10, 8, 16, 8) if tiny else (190, 128, 256, 256)
        return [(prompt, prompt + int(rng.integers(low, high + 1))) for _ in range(count)]
    if kind in ("skewed", "padded"):
        longest = 256 if tiny else 8192
        count = round(tokens / (longest / LONGER))
        shape = np.sort(rng.lognormal(0.0, 0.6, count - 1))
        rest = (count * longest / LONGER - longest) / shape.sum() * shape  # so that the mean is longest / LONGER
        lengths = [longest, *(int(min(longest, max(8, one))) for one in rest)]
        if kind == "padded":  # tokens of padding are computed; they stand in front, where they count as a prompt
            return [(longest - length + 1, longest) for length in lengths]
        return [(1, length) for length in lengths]
    return [(1, int(kind))] * max(1, tokens // int(kind))


def batch_of(sizes: list[tuple[int, int]], vocabulary: int, step: int) -> Any:
    """Random tokens, prompt first."""
    from rlpost.learner.batch import StepBatch
    from rlpost.rollout.trajectory import StopReason, Trajectory, Turn

    rng = np.random.default_rng(step)
    made = []
    for index, (prompt, length) in enumerate(sizes):
        mask = np.arange(length) >= prompt
        tokens = rng.integers(0, vocabulary, length).astype(np.int32)
        if index % 8 and prompt == sizes[index - 1][0]:  # as in a group of rollouts; the learner computes it once
            tokens[:prompt] = made[-1].token_ids[:prompt]
        made.append(
            Trajectory(
                token_ids=tokens,
                policy_mask=mask,
                rollout_logprobs=np.where(mask, -10.0, np.nan).astype(np.float32),
                versions=np.where(mask, 0, -1).astype(np.int32),
                turns=[Turn(prompt, length)],
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
    groups = np.arange(len(sizes), dtype=np.int64) // 8
    longest = max(length for _, length in sizes)
    return StepBatch(made, rng.normal(size=len(sizes)), groups, step, 100, len(sizes), longest)


def make_learner(group: tuple[str, ...], args: argparse.Namespace) -> Any:
    """A learner of (shape, options)."""
    from rlpost.algorithms import registry
    from rlpost.learner.batch import LearnerSetup
    from rlpost.learner.config import LearnerConfig
    from rlpost.learner.learner import Learner

    shape, *how = group
    checkpointing: Any = "offload" if "offload" in how else "checkpoint" in how
    config = LearnerConfig(device=args.device, gradient_checkpointing=checkpointing)
    with tempfile.TemporaryDirectory() as folder:
        setup = LearnerSetup(model_folder(shape, Path(folder), args.device), config, compiled="compiled" in how)
        return Learner(setup, algorithm=registry.build(registry.locate("grpo"), {}))


def measure(part: str, learner: Any, args: argparse.Namespace) -> dict[str, Any]:
    """One part: medians over the steps after the first."""
    from rlpost.algorithms import registry

    shape, kind, *how = part.split(":")
    sizes = sequences(kind, args.tokens, args.tiny)
    longest = max(length for _, length in sizes)
    pack = next((int(one.split("=")[1]) for one in how if one.startswith("pack=")), max(16_384, longest))
    setup = learner.setup
    learner.setup = replace(setup, config=setup.config.model_copy(update={"max_tokens_per_pack": pack}))
    seconds, results = steps(learner, sizes, args)
    took = median(seconds[args.warm_up :])
    real = sum(length - prompt for prompt, length in sizes) if kind == "padded" else sum(n for _, n in sizes)
    scored = sum(length - prompt for prompt, length in sizes)
    row: dict[str, Any] = {"step_s": took, "first_s": seconds[0], "tokens": real, "tokens_per_s": real / took}
    if args.device == "cuda" and kind != "rollouts":  # there prompts are shared, and FLOPs are not what is counted
        work = flops(shape, [length for _, length in sizes], scored)
        row |= {"mfu": work / took / (args.peak_tflops * 1e12)}
    if args.device == "cuda":
        row |= {"peak_gib": max(one["memory/learner_peak_gib"] for one in results)}
    if "score" in how:  # a step of two updates is a scoring pass and two steps of one
        once = learner._algorithm
        learner._algorithm = registry.build(registry.locate("grpo"), {"epochs": 2})
        row["score_s"] = median(steps(learner, sizes, args)[0][args.warm_up :]) - 2 * took
        learner._algorithm = once
    if "profile" in how:
        row |= profile(learner, batch_of(sizes, learner.vocabulary, 99), args.device)
    return row


def steps(learner: Any, sizes: list[tuple[int, int]], args: argparse.Namespace) -> tuple[list[float], list[dict]]:
    """Seconds and metrics of each step, the first ones included."""
    seconds, results = [], []
    for step in range(args.warm_up + args.steps):
        batch = batch_of(sizes, learner.vocabulary, step)
        began = time.perf_counter()
        results.append(learner.learn(batch).metrics)
        seconds.append(time.perf_counter() - began)
    return seconds, results


def profile(learner: Any, batch: Any, device: str) -> dict[str, Any]:
    """The ten costliest operations of one step by their own time on the device, and the sum of all."""
    import torch

    with torch.profiler.profile() as found:
        learner.learn(batch)
        if device == "cuda":
            torch.cuda.synchronize()
    return costliest(found, device)


def main() -> None:
    """Run each group of parts in a process of its own."""
    made = parser(__doc__)
    made.add_argument("--parts", nargs="+", default=None)
    made.add_argument("--tokens", type=int, default=65_536, help="tokens of a step")
    made.add_argument("--steps", type=int, default=5)
    made.add_argument("--warm-up", type=int, default=1)
    made.add_argument("--seconds", type=float, default=520, help="what is not done by then is left out")
    made.add_argument("--peak-tflops", type=float, default=790, help="the device's bf16 ceiling")
    made.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = made.parse_args()
    if args.tiny:
        args.tokens, args.steps = 1024, 2
    parts = args.parts or (TINY if args.tiny else PARTS)
    groups: dict[tuple[str, ...], list[str]] = {}
    for part in parts:
        shape, _, *how = part.split(":")
        groups.setdefault((shape, *(one for one in HELD if one in how)), []).append(part)
    results = Results("learner", args.out, {"tokens": args.tokens})
    if args.child:
        ((group, parts),) = groups.items()
        learner = make_learner(group, args)
        for part in parts:
            results.attempt(part, lambda part=part: measure(part, learner, args))
        return
    ends = time.monotonic() + args.seconds
    for number, (group, parts) in enumerate(groups.items()):
        run_group(group, parts, args, results, args.out / f"group-{number}", ends - time.monotonic())
    compare(results)


def run_group(
    group: tuple[str, ...], parts: list[str], args: argparse.Namespace, results: Results, out: Path, limit_s: float
) -> None:
    """The rows of a group, as many as there are when it ends or must end."""
    command = [sys.executable, "-P", "-m", "rlpost.benchmarks.learner", "--child", "--out", str(out), "--parts", *parts]
    for name in ("device", "tokens", "steps", "warm_up", "peak_tflops"):
        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    log, why = out.with_suffix(".log"), "no time was left"
    if limit_s > 20:
        _, why = call([*command, *(["--tiny"] if args.tiny else [])], limit_s, log)
    found = out / "learner.json"
    rows = json.loads(found.read_text())["rows"] if found.exists() else []
    for row in rows:
        results.add(**row)
    for part in parts[len(rows) :]:
        results.add(part=part, failed=why)


def compare(results: Results) -> None:
    """Packed over padded, where both ran."""
    rates = {row["part"]: row["tokens_per_s"] for row in results.rows if "tokens_per_s" in row}
    for part, rate in list(rates.items()):
        padded = rates.get(part.replace(":skewed", ":padded"))
        if ":skewed" in part and padded:
            results.add(part=f"{part} over padded", ratio=rate / padded)


if __name__ == "__main__":
    main()
