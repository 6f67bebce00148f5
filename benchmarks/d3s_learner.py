"""What the learner's time is when only N % of a step's rollouts are kept: drawn blindly, all of equal length.

    python benchmarks/d3s_learner.py --out OUT                                          # a small model on a CPU
    python benchmarks/d3s_learner.py --out OUT --device cuda --layers 24 --hidden 896 --heads 14 --kv-heads 2 \
        --intermediate 4864 --vocabulary 151936 --sequences 256 --prompt 190 --completion 256

A step scores once (two updates follow). The token-proportional part is scoring, forward and backward; the optimizer is
timed apart. Shares take turns in one process; OUT/learner.md has medians. Left out: rollouts and publication.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from comparison import markdown
from learner_step import model_folder, rollouts

from algorithms import registry
from rlpost.learner.batch import LearnerSetup, StepBatch
from rlpost.learner.config import LearnerConfig
from rlpost.learner.learner import Learner

SHARES = (100, 50, 25)
SHAPE = {
    "layers": 4, "hidden": 256, "heads": 4, "kv-heads": 4, "intermediate": 768, "vocabulary": 264, "sequences": 64,
    "prompt": 32, "completion": 96, "max-tokens-per-pack": 2048, "rounds": 7, "threads": 1, "tokens": 100,
}  # fmt: skip


def measured(learner: Learner, batch: StepBatch) -> dict[str, float]:
    """Seconds of one step, by part."""
    started = time.perf_counter()
    found = learner.learn(batch).metrics
    seconds = time.perf_counter() - started
    tokens = found["time/old_s"] + found["time/update_s"] - found["time/optimizer_s"]
    return {
        "packed": found["tokens/packed"],
        "tokens_s": tokens,
        "optimizer_s": found["time/optimizer_s"],
        "rest_s": seconds - tokens - found["time/optimizer_s"],
        "saved_s": found["time/saved_s"],
    }


def row(share: int, medians: dict[str, float], whole: dict[str, float]) -> list[str]:
    """A line of the table; the last cell is how far the token part is from proportional."""
    ratio, kept = medians["tokens_s"] / whole["tokens_s"], medians["packed"] / whole["packed"]
    parts = [f"{medians[name]:.4f}" for name in ("tokens_s", "optimizer_s", "rest_s", "saved_s")]
    return [f"{share} %", f"{medians['packed']:.0f}", *parts, f"{ratio:.3f}", f"{kept:.3f}", f"{ratio / kept - 1:+.1%}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    for name, default in SHAPE.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    options.equal = True
    options.out.mkdir(parents=True, exist_ok=True)
    config = LearnerConfig(
        device=options.device, threads=options.threads, max_tokens_per_pack=options.max_tokens_per_pack
    )
    learners = {}
    with tempfile.TemporaryDirectory() as place:
        folder = model_folder(Path(place), options)
        for share in SHARES:
            rule = {"name": "d3s", "rule": "random", "samples": share, "tokens": options.tokens}
            algorithm = registry.build(registry.locate("grpo"), {"minibatches": 2, "select": rule})
            learners[share] = Learner(LearnerSetup(folder, config), algorithm=algorithm)
    seen: dict[int, list[dict[str, float]]] = {share: [] for share in SHARES}
    for step in range(options.rounds + 1):
        batch = rollouts(options, step)
        for share, learner in learners.items():
            seen[share].append(measured(learner, batch))
    medians = {
        share: {name: statistics.median(one[name] for one in found[1:]) for name in found[0]}
        for share, found in seen.items()
    }
    titles = [
        "kept", "packed tokens", "scoring + forward + backward s", "optimizer s", "rest s", "time/saved_s",
        "token part, relative", "tokens, relative", "off proportional",
    ]  # fmt: skip
    text = markdown(titles, [row(share, medians[share], medians[SHARES[0]]) for share in SHARES])
    (options.out / "learner.md").write_text(text + "\n")
    (options.out / "learner.json").write_text(json.dumps({"medians": medians, "rounds": seen}, indent=1))
    print(text)


if __name__ == "__main__":
    main()
