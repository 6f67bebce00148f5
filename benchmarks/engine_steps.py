"""Where a step of rlpost's engine goes: milliseconds by requests, the GPU's part of it, the costliest of both.

    rlpost bench engine_steps --out DIR                     # the model runner that vLLM chooses
    rlpost bench engine_steps --out DIR --first-runner      # its first
    rlpost bench engine_steps --out DIR --device cpu --tiny

The engine's core is stepped in this process, nothing else runs. Rows are medians over the steps of one round; then a
round under torch's profiler (GPU only) and one under Python's, which makes what runs once a request look dearer than it
is. Left out: requests' way through the worker (step.py has that).
"""

from __future__ import annotations

import cProfile
import os
import pstats
import tempfile
import time
from pathlib import Path
from typing import Any

from rlpost.benchmarks.harness import Results, costliest, median, model_folder, parser, start_in
from rlpost.rollout.vllm.config import VllmConfig, engine_environment

FUNCTIONS = 30
"""Rows of the host's: the first ones only call each other."""


class Rounds:
    """Rounds of requests on one core; each has prompts of its own, in groups of 8 alike."""

    def __init__(self, core: Any, prompt: int) -> None:
        self._core = core
        self._prompt = prompt
        self._count = 0

    def play(self, requests: int, tokens: int) -> list[float]:
        """Seconds of every step until all are sampled."""
        import numpy as np

        rng = np.random.default_rng(self._count)
        for index in range(requests):
            if index % 8 == 0:
                ids = rng.integers(0, self._core.vocabulary - 2, self._prompt).tolist()
            self._core.add(f"{self._count}-{index}", ids, tokens, 1.0, index)
        self._count += 1
        seconds, left = [], requests
        while left:
            began = time.perf_counter()
            outputs = self._core.step()
            seconds.append(time.perf_counter() - began)
            left -= sum(output.finish_reason is not None for output in outputs)
        return seconds


def kernels(rounds: Rounds, requests: int, tokens: int) -> list[dict[str, Any]]:
    """The GPU's milliseconds a step: all, and the costliest kernels."""
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as found:
        steps = len(rounds.play(requests, tokens))
    spent = costliest(found, "cuda")
    rows = [("all kernels", spent["busy_ms"]), *((one["name"], one["ms"]) for one in spent["costliest"])]
    return [{"part": f"GPU: {name}", "requests": requests, "step_ms": ms / steps} for name, ms in rows]


def functions(rounds: Rounds, requests: int, tokens: int) -> list[dict[str, Any]]:
    """Shares of a step under Python's profiler: the costliest by the time within, what they call included."""
    profile = cProfile.Profile()
    profile.enable()
    rounds.play(requests, tokens)
    profile.disable()
    stats: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    whole = sum(own for _, _, own, _, _ in stats.values())
    named = [(f"{Path(file).name}:{name}", within) for (file, _, name), (_, _, _, within, _) in stats.items()]
    inside = [one for one in sorted(named, key=lambda one: -one[1]) if "engine_steps" not in one[0]]
    first = inside[:FUNCTIONS]
    return [{"part": f"host: {name}", "requests": requests, "share": within / whole} for name, within in first]


def main() -> None:
    """One engine, several rounds."""
    made = parser(__doc__)
    made.add_argument("--requests", type=int, nargs="+", default=[256, 128, 64])
    made.add_argument("--tokens", type=int, default=128)
    made.add_argument("--prompt", type=int, default=190)
    made.add_argument("--shape", default="0.5b")
    made.add_argument("--first-runner", action="store_true", help="not the model runner that vLLM would choose")
    args = made.parse_args()
    if args.tiny:
        args.requests, args.tokens, args.prompt, args.shape = [16], 8, 24, "tiny"
    most, on_gpu = max(args.requests), args.device == "cuda"
    config = VllmConfig(slots=most, kv_cache_gib=4.0 if on_gpu else 0.25, threads=2)
    first = {"VLLM_USE_V2_MODEL_RUNNER": "0"} if args.first_runner else {}
    start_in({**os.environ, **engine_environment(config, args.device), "HF_HUB_OFFLINE": "1", **first})
    results = Results("engine_steps", args.out, {"model": args.shape, "tokens": args.tokens, "prompt": args.prompt})
    with tempfile.TemporaryDirectory() as folder:
        model = model_folder(args.shape, Path(folder), args.device)
        from rlpost.rollout.vllm.core import VllmCore

        core = VllmCore(str(model), config, args.prompt + args.tokens + 8, 0, seeded=False)
        rounds = Rounds(core, args.prompt)
        rounds.play(most, args.tokens // 2)
        for requests in args.requests:
            seconds = rounds.play(requests, args.tokens)
            results.add(part="engine", requests=requests, step_ms=1e3 * median(seconds), steps=len(seconds))
        for row in [*(kernels(rounds, most, args.tokens) if on_gpu else []), *functions(rounds, most, args.tokens)]:
            results.add(**row)
        core.close()


if __name__ == "__main__":
    main()
