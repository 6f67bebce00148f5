"""Rounds of ``vllm.LLM.generate``: what ``step.py`` starts as a process of its own to hold rlpost's rollouts against.

    python -m rlpost.benchmarks.rollout_raw MODEL PROMPTS.jsonl ROUNDS.jsonl --completions 256 --tokens 256 ...

The same prompts in groups of 8, log-probs of the tokens sampled, the same KV cache and number of slots, and vLLM as it
is: its engine in a process of its own. A row is one round's times and sampled tokens. Left out: everything around
generation.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from rlpost.benchmarks.harness import peer_environment, start_in
from rlpost.rollout.vllm.config import VllmConfig

GROUP = 8


def main() -> None:
    """Start the engine, run the rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("prompts", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--kv-cache-gib", type=float, required=True)
    for name in ("completions", "tokens", "context", "steps", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    args = parser.parse_args()
    slots, cache = args.completions, args.kv_cache_gib
    config = VllmConfig(dtype=args.dtype, slots=slots, kv_cache_gib=cache, threads=args.threads)
    start_in(peer_environment(config, args.device))
    rounds(args, config)


def rounds(args: argparse.Namespace, config: VllmConfig) -> None:
    """Generate ``--steps`` times, prompts moving on from round to round."""
    from transformers import AutoTokenizer
    from vllm import LLM, SamplingParams

    from rlpost.rollout.vllm.core import engine_arguments

    options = engine_arguments(args.model, config, args.context, 0, cpu=args.device == "cpu")
    options.pop("weight_transfer_config")
    llm = LLM(**options)
    tokenizer: Any = AutoTokenizer.from_pretrained(args.model)
    texts = [json.loads(line)["prompt"] for line in args.prompts.read_text().splitlines()]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    sampling = SamplingParams(max_tokens=args.tokens, temperature=1.0, logprobs=0, detokenize=False)
    groups = args.completions // GROUP
    for number in range(args.steps):
        chosen = [ids[(number * groups + place) % len(ids)] for place in range(groups)]
        inputs: Any = [{"prompt_token_ids": tokens} for tokens in chosen for _ in range(GROUP)]
        began = time.time()
        outputs = llm.generate(inputs, sampling, use_tqdm=False)
        row = {"began": began, "ended": time.time(), "tokens": sum(len(one.outputs[0].token_ids) for one in outputs)}
        with args.rows.open("a") as out:
            out.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
