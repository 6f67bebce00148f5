"""ScaleBiO on real instruction data: source weights, then fine-tuning by them and by uniform ones, same budget.

    rlpost bench scalebio_real --out runs/sources --model smollm2.gguf --data DATA/scalebio_sources
    rlpost bench scalebio_real --out /tmp/real --device cpu --tiny                    # does it run?

DATA holds train_NAME.json.gz (the sources), val.json.gz and test.json.gz. A run of SmolLM2-135M takes about two minutes
on a GPU; it writes the weights every few steps, test loss, and how often a token (a whole answer) of the test set is
right when sampled at T = 1. Left out: Ray (the learners run in this process) and answers that the model generates.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlpost.algorithms.registry import locate
from rlpost.algorithms.scalebio import ScaleBiOConfig
from rlpost.benchmarks.harness import Results, parser
from rlpost.benchmarks.studies.scalebio_noise import MODEL, fine_tune, learn_weights, untrained, write_data
from rlpost.bilevel.data import encode, read
from rlpost.learner.batch import LearnerSetup
from rlpost.learner.config import LearnerConfig, LoraConfig, ModelConfig, OptimizerConfig
from rlpost.learner.source import materialise
from rlpost.rollout.chat import load_format


def data_options(folder: Path) -> dict[str, Any]:
    """The files of a folder as the algorithm's options."""
    sources = [
        {"name": path.name.removeprefix("train_").split(".")[0], "data": str(path)}
        for path in sorted(folder.glob("train_*"))
    ]
    return {"sources": sources, "validation": str(folder / "val.json.gz"), "test": str(folder / "test.json.gz")}


def run(options: Any, results: Results, scratch: Path) -> None:
    """One experiment; a row of the weights, then one a fine-tuning."""
    data = data_options(options.data) if options.data else write_data(scratch / "data", options.seed)
    keys = data | {
        "alpha": options.alpha,
        "weights_lr": options.weights_lr,
        "batch_size": options.batch,
        "layout": options.layout,
        "allow_overlap": True,
        "max_broken": 500,
        "sft_examples": options.sft_examples,
    }
    config = ScaleBiOConfig.model_validate(keys)
    model = ModelConfig(path=options.model) if options.model else ModelConfig(build=MODEL)
    folder = materialise(model, scratch / "model", options.seed)
    notes: list[str] = []
    chat = load_format(folder, "template" if options.model else "plain")
    corpus = encode(read(config, Path("."), notes.append), chat, options.max_context, notes.append)
    results.facts["notes"] = " / ".join(note for note in notes if "broken" not in note)
    results.facts["broken rows"] = sum("broken" in note for note in notes)
    lora = LoraConfig(rank=16) if options.layout == "adapters" else None
    optimizer = OptimizerConfig(lr=options.lr, schedule="cosine", warmup_steps=max(1, options.steps // 33))
    learner = LearnerConfig(device=options.device, optimizer=optimizer, lora=lora)
    setup = LearnerSetup(folder, learner, locate("scalebio"), keys, seed=options.seed)
    started = time.perf_counter()
    trail = learn_weights(setup, corpus, config, options.steps)
    seconds = time.perf_counter() - started
    for step in sorted({*range(0, options.steps, max(1, options.steps // 8)), options.steps - 1}):
        shown = {name: round(float(weight), 4) for name, weight in zip(corpus.names, trail[step], strict=True)}
        results.add(part=f"weights after {step + 1}", **shown)
    results.facts["seconds a step"] = round(seconds / options.steps, 3)
    sft = replace(
        setup, config=learner.model_copy(update={"optimizer": optimizer.model_copy(update={"lr": options.sft_lr})})
    )
    results.add(part="before", **asdict(untrained(sft, corpus, config)))
    uniform = np.full(len(corpus.names), 1 / len(corpus.names))
    for name, probs in {"weighted": trail[-1], "uniform": uniform}.items():
        started = time.perf_counter()
        found = asdict(fine_tune(sft, corpus, config, probs))
        results.add(part=name, **found, seconds=time.perf_counter() - started)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--model", help="a model folder or .gguf file; absent: a tiny one from scratch")
    made.add_argument("--data", type=Path, help="folder of train_*, val and test; absent: the planted noise")
    made.add_argument("--layout", choices=("adapters", "two_copies"), default="two_copies")
    made.add_argument("--steps", type=int, default=240)
    made.add_argument("--batch", type=int, default=64)
    made.add_argument("--alpha", type=float, default=10.0)
    made.add_argument("--lr", type=float, default=5e-5)
    made.add_argument("--weights-lr", type=float, default=0.02)
    made.add_argument("--sft-examples", type=int, default=6000)
    made.add_argument("--sft-lr", type=float, default=1e-4)
    made.add_argument("--max-context", type=int, default=512)
    made.add_argument("--seed", type=int, default=0)
    options = made.parse_args()
    if options.tiny:
        options.steps, options.batch, options.sft_examples = 6, 8, 32
    keys = ("layout", "steps", "batch", "alpha", "lr", "weights_lr", "sft_examples", "sft_lr", "seed")
    facts = {key: getattr(options, key) for key in keys} | {
        "data": options.data.name if options.data else "planted noise"
    }
    results = Results("scalebio_real", options.out, facts)
    with tempfile.TemporaryDirectory() as scratch:
        run(options, results, Path(scratch))
    results.write()


if __name__ == "__main__":
    main()
