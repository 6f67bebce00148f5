"""Planted noise: does ScaleBiO find the one source that is clean and in-domain, and does fine-tuning by it help?

    rlpost bench scalebio_noise --out runs/noise                  # 5 seeds, one core; goes on where it stopped

Four sources of 400 examples. ``clean``: three letters, each to be replaced through a secret permutation of 16 letters.
``other``: the same with digits and a permutation of their own. ``shuffled`` and ``dots``: further questions of
``clean`` with the answers of other questions, and with "." for an answer. Validation and test are further questions of
``clean``. A Qwen2 of 90,000 weights from scratch. Each seed draws permutations, data, weights and order anew, learns
the source weights, then fine-tunes from the start by these and by uniform ones (same number of examples, same
validation data). Writes one JSON a seed and a Markdown table into --out. Left out: Ray (all runs in this process).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlpost.algorithms.registry import locate
from rlpost.algorithms.scalebio import ScaleBiOConfig
from rlpost.bilevel.data import Corpus, encode, read
from rlpost.bilevel.finetune import batches, draw, evaluate
from rlpost.bilevel.learner import BilevelLearner, BilevelStep, side_config
from rlpost.bilevel.trainer import examples_of_step
from rlpost.learner.batch import LearnerSetup
from rlpost.learner.config import BuildConfig, LearnerConfig, ModelConfig, OptimizerConfig
from rlpost.learner.learner import Learner
from rlpost.learner.source import materialise
from rlpost.rollout.chat import load_format

SOURCES = ("clean", "other", "shuffled", "dots")
LETTERS, DIGITS = "abcdefghijklmnop", "0123456789"
EXAMPLES, VALIDATION, TEST = 400, 200, 200
MODEL = BuildConfig(hidden=64, layers=2, heads=2, intermediate=128, initializer_range=0.08)


def write_data(folder: Path, seed: int) -> dict[str, Any]:
    """Files of one seed below ``folder``; the algorithm's options that name them."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    questions = _questions(rng, LETTERS, 3 * EXAMPLES + VALIDATION + TEST)
    secret = dict(zip(LETTERS, rng.permutation(list(LETTERS)), strict=True))
    digits = dict(zip(DIGITS, rng.permutation(list(DIGITS)), strict=True))
    parts = np.split(questions, np.cumsum([EXAMPLES, EXAMPLES, EXAMPLES, VALIDATION]))
    shuffled = rng.permutation(parts[1])
    rows = {
        "clean": [(text, _answer(text, secret)) for text in parts[0]],
        "other": [(text, _answer(text, digits)) for text in _questions(rng, DIGITS, EXAMPLES)],
        "shuffled": [(text, _answer(other, secret)) for text, other in zip(parts[1], shuffled, strict=True)],
        "dots": [(text, ".") for text in parts[2]],
        "validation": [(text, _answer(text, secret)) for text in parts[3]],
        "test": [(text, _answer(text, secret)) for text in parts[4]],
    }
    for name, pairs in rows.items():
        lines = (json.dumps({"prompt": str(prompt), "response": response}) + "\n" for prompt, response in pairs)
        (folder / f"{name}.jsonl").write_text("".join(lines))
    files = {name: str(folder / f"{name}.jsonl") for name in rows}
    return {"sources": [files[name] for name in SOURCES], "validation": files["validation"], "test": files["test"]}


def _questions(rng: np.random.Generator, alphabet: str, count: int) -> np.ndarray:
    """Distinct strings of three characters."""
    size = len(alphabet)
    codes = rng.choice(size**3, count, replace=False)
    return np.array(["".join(alphabet[code // size**place % size] for place in range(3)) for code in codes])


def _answer(text: str, secret: dict[str, str]) -> str:
    return "".join(secret[letter] for letter in text)


def run_seed(folder: Path, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Learn the weights, fine-tune twice, compare."""
    started = time.perf_counter()
    data = write_data(folder / "data", seed)
    own = {
        "sft_examples": options.sft_examples,
        "alpha": options.alpha,
        "weights_lr": options.weights_lr,
        "batch_size": options.batch,
        "layout": options.layout,
    }
    keys = data | own
    config = ScaleBiOConfig.model_validate(keys)
    model = materialise(ModelConfig(build=MODEL), folder / "model", seed)
    chat = load_format(model, "plain")
    corpus = encode(read(config, folder, print), chat, 64, print)
    chosen = {"name": "lisa", "options": {"layers": options.lisa, "every": 5}} if options.lisa else {}
    optimizer = OptimizerConfig(lr=options.lr, schedule="cosine", **chosen)
    learner = LearnerConfig(device="cpu", dtype="fp32", optimizer=optimizer)
    setup = LearnerSetup(model, learner, locate("scalebio"), keys, seed=seed)
    trail = learn_weights(setup, corpus, config, options.steps)
    probs = trail[-1]
    arms = {"weighted": probs, "uniform": np.full(len(probs), 1 / len(probs))}
    results = {name: asdict(fine_tune(setup, corpus, config, weights)) for name, weights in arms.items()}
    return {
        "seed": seed,
        "weights": dict(zip(corpus.names, probs.tolist(), strict=True)),
        "trajectory": [row.tolist() for row in trail[:: max(1, len(trail) // 40)]],
        "seconds": round(time.perf_counter() - started, 1),
        **results,
    }


def learn_weights(setup: LearnerSetup, corpus: Corpus, config: ScaleBiOConfig, steps: int) -> list[np.ndarray]:
    """The weights after each step."""
    bilevel = BilevelLearner(setup, corpus)
    trail = []
    for step in range(steps):
        train, validation = (
            examples_of_step(len(part), config.batch_size, step, (setup.seed, number))
            for number, part in enumerate((corpus.train, corpus.validation))
        )
        bilevel.step(BilevelStep(train, validation, step, steps))
        trail.append(bilevel.weights.probs.copy())
    bilevel.close()
    return trail


def fine_tune(setup: LearnerSetup, corpus: Corpus, config: ScaleBiOConfig, probs: np.ndarray) -> Any:
    """One final fine-tuning; what the test set says."""
    learner = plain_learner(setup, config)
    total = config.sft_examples or len(corpus.train)
    for batch in batches(draw(corpus, probs, total, setup.seed), config.batch_size, setup.seed):
        learner.learn(batch)
    result = evaluate(learner.score, corpus.test)
    learner.close()
    return result


def untrained(setup: LearnerSetup, corpus: Corpus, config: ScaleBiOConfig) -> Any:
    """What the test set says of the model that all start from."""
    learner = plain_learner(setup, config)
    result = evaluate(learner.score, corpus.test)
    learner.close()
    return result


def plain_learner(setup: LearnerSetup, config: ScaleBiOConfig) -> Learner:
    """The learner of a fine-tuning."""
    return Learner(replace(setup, config=side_config(setup.config, config.layout)))


def table(results: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| seed | " + " | ".join(SOURCES) + " | test loss weighted | uniform | answers right weighted | uniform | s |",
        "|---|" + "---|" * (len(SOURCES) + 5),
    ]
    for one in results:
        weights = " | ".join(f"{one['weights'][name]:.3f}" for name in SOURCES)
        both = [one["weighted"], one["uniform"]]
        losses = " | ".join(f"{arm['loss']:.3f}" for arm in both)
        right = " | ".join(f"{arm['answer_accuracy']:.1%}" for arm in both)
        lines.append(f"| {one['seed']} | {weights} | {losses} | {right} | {one['seconds']:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/scalebio_noise"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--sft-examples", type=int, default=6400)
    parser.add_argument("--alpha", type=float, default=10.0)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--layout", choices=("adapters", "two_copies"), default="two_copies")
    parser.add_argument("--lisa", type=int, default=0, help="layers LISA trains at a time, drawn every 5 steps; 0: all")
    parser.add_argument("--weights-lr", type=float, default=0.03)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for seed in range(options.seeds):
        done = options.out / f"seed-{seed}.json"
        if not done.exists():
            found = run_seed(options.out / f"seed-{seed}", seed, options)
            done.write_text(json.dumps(found, indent=1) + "\n")
        results.append(json.loads(done.read_text()))
        print(table(results[-1:]).splitlines()[-1], flush=True)
    (options.out / "table.md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
