"""What the learner's time is when only N % of a step's rollouts are kept: drawn blindly, all of equal length.

    rlpost bench d3s_learner --out OUT                       # Qwen2 0.5B on a GPU: 256 sequences of 512 tokens
    rlpost bench d3s_learner --out OUT --device cpu --tiny   # 3 M weights, 64 sequences of 128 tokens

A step scores once and makes two updates. The token-proportional part is scoring, forward and backward; the optimizer is
timed apart, and so is the rest (laying out the batch, metrics). Shares take turns in one process. Left out: rollouts,
publication, and prompts that a group shares (a dropped rollout does not save those).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from rlpost.benchmarks.harness import Results, median, model_folder, parser
from rlpost.benchmarks.learner import batch_of

SHARES = (100, 50, 25)


def measured(learner: Any, batch: Any) -> dict[str, float]:
    """Seconds of one step, by part."""
    started = time.perf_counter()
    found = learner.learn(batch).metrics
    seconds = time.perf_counter() - started
    proportional = found["time/old_s"] + found["time/update_s"] - found["time/optimizer_s"]
    return {
        "packed_tokens": found["tokens/packed"],
        "token_part_s": proportional,
        "optimizer_s": found["time/optimizer_s"],
        "rest_s": seconds - proportional - found["time/optimizer_s"],
        "saved_s": found["time/saved_s"],
    }


def learners(shape: str, threads: int, device: str, tokens: int) -> dict[int, Any]:
    """A learner for each share."""
    from rlpost.algorithms import registry
    from rlpost.learner.batch import LearnerSetup
    from rlpost.learner.config import LearnerConfig
    from rlpost.learner.learner import Learner

    config = LearnerConfig(device=device, threads=threads, max_tokens_per_pack=16_384 if device == "cuda" else 2048)
    made = {}
    with tempfile.TemporaryDirectory() as place:
        setup = LearnerSetup(model_folder(shape, Path(place), device), config)
        for share in SHARES:
            rule = {"name": "d3s", "rule": "random", "samples": share, "tokens": tokens}
            algorithm = registry.build(registry.locate("grpo"), {"minibatches": 2, "select": rule})
            made[share] = Learner(setup, algorithm=algorithm)
    return made


def main() -> None:
    """Measure and write."""
    made = parser(__doc__)
    made.add_argument("--shape", default="0.5b", help="see benchmarks/harness.py")
    made.add_argument("--sequences", type=int, default=256)
    made.add_argument("--length", type=int, default=512)
    made.add_argument("--rounds", type=int, default=7)
    made.add_argument("--threads", type=int, default=1, help="on a CPU")
    made.add_argument("--tokens", type=int, default=100, help="percent of the kept samples' tokens with loss")
    args = made.parse_args()
    if args.tiny:
        args.shape, args.sequences, args.length = "tiny", 64, 128
    found = learners(args.shape, args.threads, args.device, args.tokens)
    seen: dict[int, list[dict[str, float]]] = {share: [] for share in SHARES}
    for step in range(args.rounds + 1):
        for share, learner in found.items():
            batch = batch_of([(1, args.length)] * args.sequences, learner.vocabulary, step)
            seen[share].append(measured(learner, batch))
    results = Results("d3s_learner", args.out, {"sequences": args.sequences, "tokens each": args.length})
    whole: dict[str, float] = {}
    for share, rounds in seen.items():
        medians = {name: median([one[name] for one in rounds[1:]]) for name in rounds[0]}
        whole = whole or medians
        time_ratio, kept = (medians[name] / whole[name] for name in ("token_part_s", "packed_tokens"))
        results.add(
            part=f"{share} %",
            **medians,
            time_ratio=time_ratio,
            token_ratio=kept,
            off_proportional=time_ratio / kept - 1,
        )


if __name__ == "__main__":
    main()
