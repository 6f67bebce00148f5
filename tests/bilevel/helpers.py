"""What the bilevel tests share: small files of examples, a corpus, a learner in this process.

Left out: Ray.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlpost.algorithms.registry import locate
from rlpost.algorithms.scalebio import ScaleBiOConfig
from rlpost.bilevel.data import Corpus, encode, read
from rlpost.bilevel.learner import BilevelLearner, BilevelStep
from rlpost.learner.batch import LearnerSetup
from rlpost.learner.config import LearnerConfig
from rlpost.rollout.chat import load_format


def write(path: Path, rows: Sequence[Any]) -> str:
    """A JSONL file; strings are written as they are."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def sums(first: int, count: int, answer: str = "") -> list[dict[str, str]]:
    """Examples that differ from those of another ``first``."""
    return [{"prompt": f"{n}+1=", "response": answer or str(n + 1)} for n in range(first, first + count)]


def options(folder: Path, **changes: Any) -> dict[str, Any]:
    """Options of an algorithm with three small sources in ``folder``."""
    made = {
        "sources": [
            write(folder / "good.jsonl", sums(0, 24)),
            write(folder / "dots.jsonl", sums(100, 16, ".")),
            write(folder / "words.jsonl", [{"prompt": f"say {n}", "response": f"{n} it is"} for n in range(8)]),
        ],
        "validation": write(folder / "validation.jsonl", sums(200, 10)),
        "test": write(folder / "test.jsonl", sums(300, 6)),
        "batch_size": 12,
    }
    return made | changes


def corpus_of(keys: dict[str, Any], model: Path) -> Corpus:
    """Read and tokenised, in plain chat format."""
    config = ScaleBiOConfig.model_validate(keys)
    return encode(read(config, Path("."), lambda text: None), load_format(model, "plain"), 64, lambda text: None)


def learner_of(keys: dict[str, Any], model: Path, rank: int = 0, world: int = 1, **more: Any) -> BilevelLearner:
    """A bilevel learner on a CPU; ``more`` are keys of LearnerConfig, and ``rendezvous``."""
    rendezvous = more.pop("rendezvous", "")
    config = LearnerConfig(**({"device": "cpu", "dtype": "fp32", "ranks": world} | more))
    setup = LearnerSetup(model, config, locate("scalebio"), keys, rendezvous=rendezvous, collective_timeout_s=60.0)
    return BilevelLearner(setup, corpus_of(keys, model), rank, world)


def job(step: int, train: int, validation: int, size: int = 12) -> BilevelStep:
    """Random examples of a step."""
    rng = np.random.default_rng([9, step])
    return BilevelStep(rng.choice(train, size, replace=False), rng.choice(validation, 6, replace=False), step, 20)
