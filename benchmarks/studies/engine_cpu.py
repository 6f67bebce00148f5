"""The engine's own cost on a CPU: the same requests through VllmEngine and through vllm.LLM.generate, side by side.

``rlpost bench engine_cpu`` prints seconds a round of both and their ratio (below 1: VllmEngine is faster), then
where a step's time goes. Both run in one process and take turns, so a busy machine slows both alike; CPU seconds are
less noisy than wall seconds. Left out: weight updates and multi-turn episodes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from rlpost.rollout.engine import SampleRequest
from rlpost.rollout.vllm.config import VllmConfig, engine_environment

CONTEXT = 512


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    config = VllmConfig(dtype="fp32", slots=arguments.requests, kv_cache_gib=0.25, threads=arguments.threads)
    environment = engine_environment(config, "cpu")
    if any(os.environ.get(name) != value for name, value in environment.items()):
        os.execve(sys.executable, [sys.executable, "-P", *sys.argv], {**os.environ, **environment})
    with tempfile.TemporaryDirectory() as folder:
        build_model(folder)
        measure(folder, config, arguments)


def build_model(folder: str) -> None:
    """A Qwen2 of 1.9 million parameters, random weights."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=320, hidden_size=256, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
            intermediate_size=512, tie_word_embeddings=True, max_position_embeddings=1024, initializer_range=0.05,
        )
    ).save_pretrained(folder)  # fmt: skip


def measure(folder: str, config: VllmConfig, arguments: argparse.Namespace) -> None:
    """Rounds of both, in turns."""
    started = time.perf_counter()
    from vllm import LLM, SamplingParams

    from rlpost.rollout.vllm.core import engine_arguments
    from rlpost.rollout.vllm.engine import VllmEngine

    imported = time.perf_counter()
    engine = VllmEngine(folder, config, CONTEXT, [])
    up = time.perf_counter()
    prompts = [[5 + (7 * i + j) % 200 for j in range(20)] for i in range(arguments.requests)]
    numbers = iter(range(1_000_000))

    async def ours() -> None:
        requests = [SampleRequest(str(next(numbers)), tokens, arguments.tokens) for tokens in prompts]
        await asyncio.gather(*(engine.generate(request) for request in requests))

    asyncio.run(ours())
    print(f"import {imported - started:.1f} s, engine {up - imported:.1f} s, first generate ", end="")
    print(f"{time.perf_counter() - up:.1f} s")
    llm = LLM(**engine_arguments(folder, config, CONTEXT, 0, cpu=True))
    sampling = SamplingParams(max_tokens=arguments.tokens, ignore_eos=True, logprobs=0, detokenize=False)
    inputs: Any = [{"prompt_token_ids": tokens} for tokens in prompts]
    contestants: dict[str, Callable[[], Any]] = {
        "VllmEngine": lambda: asyncio.run(ours()),
        "LLM.generate": lambda: llm.generate(inputs, sampling, use_tqdm=False),
    }
    report(contestants, arguments)
    stats = engine.stats()
    print(f"VllmEngine: {stats['step_s'] / stats['steps'] * 1e3:.2f} ms an engine step")
    asyncio.run(engine.close())


def report(contestants: dict[str, Callable[[], Any]], arguments: argparse.Namespace) -> None:
    """Run the contestants in turns and print medians and the ratio of the first to the second."""
    wall: dict[str, list[float]] = {name: [] for name in contestants}
    cpu: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(arguments.rounds + 1):
        for name, run in contestants.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            run()
            if round_number:  # the first warms up
                wall[name].append(time.perf_counter() - began)
                cpu[name].append(time.process_time() - began_cpu)
    tokens = arguments.requests * arguments.tokens
    for name in contestants:
        seconds, cpu_seconds = statistics.median(wall[name]), statistics.median(cpu[name])
        print(f"{name:13} {seconds:.3f} s a round ({tokens / seconds:,.0f} tok/s), CPU {cpu_seconds:.3f} s")
    ours, theirs = contestants
    ratio = statistics.median(a / b for a, b in zip(wall[ours], wall[theirs], strict=True))
    ratio_cpu = statistics.median(a / b for a, b in zip(cpu[ours], cpu[theirs], strict=True))
    print(f"ratio {ratio:.3f} (CPU seconds {ratio_cpu:.3f})")


if __name__ == "__main__":
    main()
