"""The final fine-tuning: examples drawn from the sources by weight, the validation examples added, one pass.

Run by the learned weights and by uniform ones with the same number of examples, the same validation data, the same
start and the same seed, and compared on the test set. Left out: answers that the model generates (a test example's own
answer is scored token by token, which needs no engine).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlpost.algorithms.scalebio import token_mean_coefficients
from rlpost.bilevel.data import Corpus, Example
from rlpost.learner.batch import StepBatch
from rlpost.sampling import derive_seed

Score = Callable[[Sequence[Sequence[int]]], list[NDArray[np.float32]]]
"""Log-probs of tokens 1.. of each sequence."""


@dataclass(frozen=True, slots=True)
class TestResult:
    """What a model makes of the test set.

    Attributes:
        loss: mean negative log-probability of a learned token.
        token_accuracy: mean probability of a learned token, i.e. how often it is written when sampled at T = 1.
        answer_accuracy: mean probability of writing a whole answer, token for token.
    """

    loss: float
    token_accuracy: float
    answer_accuracy: float


def counts(probs: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """(m,) how many of ``total`` examples each source gives: total x p rounded so that they add up (largest rests)."""
    exact = probs / probs.sum() * total
    found = np.floor(exact).astype(np.int64)
    for index in np.argsort(found - exact, kind="stable")[: total - int(found.sum())]:
        found[index] += 1
    return found


def draw(corpus: Corpus, probs: NDArray[np.float64], total: int, seed: int) -> list[Example]:
    """``total`` training examples by weight, and all validation examples, shuffled.

    Examples of a source are drawn without replacement; one that is to give more than it has gives all of them as often
    as needed first.
    """
    rng = np.random.default_rng(seed)
    drawn: list[Example] = []
    for number, wanted in enumerate(counts(probs, total)):
        own = np.flatnonzero(corpus.source == number)
        passes, rest = divmod(int(wanted), len(own))
        indices = np.concatenate([np.tile(own, passes), rng.permutation(own)[:rest]])
        drawn += [corpus.train[index] for index in indices]
    drawn += corpus.validation
    return [drawn[index] for index in rng.permutation(len(drawn))]


def batches(examples: Sequence[Example], size: int, seed: int) -> Iterator[StepBatch]:
    """One pass in steps of ``size`` examples (the last may have fewer), each a mean over learned tokens."""
    total = -(-len(examples) // size)
    for step in range(total):
        part = examples[step * size : (step + 1) * size]
        yield StepBatch(
            trajectories=[example.trajectory() for example in part],
            advantages=token_mean_coefficients(np.array([example.tokens for example in part])),
            group_ids=np.zeros(len(part), dtype=np.int64),
            step=step,
            steps_total=total,
            nominal_sequences=len(part),
            max_tokens=max(len(example.token_ids) for example in part),
            seed=derive_seed(seed, step),
        )


def evaluate(score: Score, examples: Sequence[Example]) -> TestResult:
    """Score the learned tokens of ``examples``."""
    scored = score([example.token_ids.tolist() for example in examples])
    logprobs = [
        values[example.learned[1:]].astype(np.float64) for values, example in zip(scored, examples, strict=True)
    ]
    every = np.concatenate(logprobs)
    whole = np.array([values.sum() for values in logprobs])
    return TestResult(float(-every.mean()), float(np.exp(every).mean()), float(np.exp(whole).mean()))
