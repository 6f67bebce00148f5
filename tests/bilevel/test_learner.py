"""One step of (u, w, lambda) against a reference written by hand; layouts, LISA, resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from rlpost.bilevel.data import Corpus, Example
from rlpost.bilevel.learner import BilevelLearner
from rlpost.learner.batch import LearnerError
from rlpost.learner.config import LoraConfig, OptimizerConfig
from rlpost.learner.errors import ModelError
from tests.bilevel.helpers import corpus_of, job, learner_of, options, sums, write

ALPHA, RATE, WEIGHTS_RATE, STEPS = 4.0, 1e-2, 0.05, 3


def mean_loss(model: Any, example: Example) -> torch.Tensor:
    """Mean negative log-probability of the learned tokens, from plain logits."""
    ids = torch.from_numpy(example.token_ids).long()[None]
    logprobs = model(input_ids=ids[:, :-1]).logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[0, :, 0]
    return -logprobs[torch.from_numpy(example.learned[1:])].mean()


class ByHand:
    """Two models in fp64 and the three updates as the paper's equations have them (losses divided by alpha)."""

    def __init__(self, folder: Path, corpus: Corpus) -> None:
        self.corpus = corpus
        self.u, self.w = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64) for _ in "uw")
        self.logits = torch.zeros(len(corpus.names), dtype=torch.float64, requires_grad=True)
        self.adam = [torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0) for model in (self.u, self.w)]
        self.adam_logits = torch.optim.AdamW([self.logits], lr=WEIGHTS_RATE)

    def weighted(self, model: Any, train: np.ndarray) -> torch.Tensor:
        """L2(lambda, x) on the batch."""
        sources, probs = self.corpus.source[train], self.logits.softmax(0)
        total = torch.zeros((), dtype=torch.float64)
        for source in np.unique(sources):
            losses = [mean_loss(model, self.corpus.train[index]) for index in train[sources == source]]
            total = total + probs[source] * torch.stack(losses).mean()
        return total

    def step(self, train: np.ndarray, validation: np.ndarray) -> None:
        held_out = [self.corpus.validation[index] for index in validation]
        tokens = sum(example.tokens for example in held_out)
        self.logits.grad = None
        (ALPHA * (self.weighted(self.w, train) - self.weighted(self.u, train))).backward()
        gradient = self.logits.grad.clone()  # what follows adds to it
        for model in (self.u, self.w):
            model.zero_grad()
        self.weighted(self.u, train).backward()
        outer = sum(mean_loss(self.w, example) * example.tokens for example in held_out) / tokens
        (self.weighted(self.w, train) + outer / ALPHA).backward()
        for optimizer in self.adam:
            optimizer.step()
        self.logits.grad = gradient
        self.adam_logits.step()


def adamw(**changes: Any) -> OptimizerConfig:
    return OptimizerConfig(**({"lr": RATE, "clip_grad": 0.0} | changes))


def plain_weights(learner: BilevelLearner, side: str) -> dict[str, np.ndarray]:
    policy = getattr(learner, f"_{side}").policy
    return {name: weight.double().numpy().copy() for name, weight in policy.full_weights(torch.float32)}


def test_steps_are_those_written_by_hand(tmp_path: Path, model_folder: Path) -> None:
    keys = options(tmp_path, alpha=ALPHA, weights_lr=WEIGHTS_RATE, layout="two_copies")
    learner = learner_of(keys, model_folder, optimizer=adamw(), max_tokens_per_pack=100)
    corpus = corpus_of(keys, model_folder)
    reference = ByHand(model_folder, corpus)
    for step in range(STEPS):
        one = job(step, len(corpus.train), len(corpus.validation))
        learner.step(one)
        reference.step(one.train, one.validation)
    probs = reference.logits.detach().softmax(0).numpy()
    assert np.abs(probs - 1 / 3).max() > 0.01
    np.testing.assert_allclose(learner.weights.probs, probs, rtol=0, atol=2e-4)
    for side, model in (("u", reference.u), ("w", reference.w)):
        mine = plain_weights(learner, side)
        for name, weight in model.named_parameters():
            close = np.abs(mine[name] - weight.detach().numpy()) < RATE / 20
            assert close.mean() > 0.99 or name.endswith("k_proj.bias"), (
                name
            )  # AdamW's sign, where a gradient is nearly 0


def run(learner: BilevelLearner, corpus: Corpus, first: int = 0, last: int = 4) -> list[dict[str, float]]:
    return [learner.step(job(step, len(corpus.train), len(corpus.validation))) for step in range(first, last)]


LAYOUTS: dict[str, dict[str, Any]] = {
    "adapters": {"keys": {"layout": "adapters"}, "config": {"lora": LoraConfig(rank=4), "optimizer": adamw()}},
    "adapters, bf16": {
        "keys": {"layout": "adapters"},
        "config": {"dtype": "bf16", "optimizer": adamw(), "gradient_checkpointing": True},
    },
    "two copies with LISA": {
        "keys": {"layout": "two_copies"},
        "config": {"optimizer": adamw(name="lisa", options={"layers": 1, "every": 2})},
    },
    "two copies, bf16, LISA": {
        "keys": {"layout": "two_copies"},
        "config": {"dtype": "bf16", "optimizer": adamw(name="lisa", options={"layers": 1, "every": 2})},
    },
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_every_layout_learns_and_resumes_exactly(case: str, tmp_path: Path, model_folder: Path) -> None:
    keys = options(tmp_path, **LAYOUTS[case]["keys"])
    corpus = corpus_of(keys, model_folder)
    learner = learner_of(keys, model_folder, **LAYOUTS[case]["config"])
    rows = run(learner, corpus)
    assert rows[0]["delta/good"] == 0.0  # u and w start alike
    assert rows[0]["train_loss/u"] == pytest.approx(rows[0]["train_loss/w"], abs=1e-2 if "bf16" in case else 1e-5)
    assert rows[0]["weight/good"] == pytest.approx(1 / 3)
    assert rows[-1]["train_loss/u"] < rows[0]["train_loss/u"]
    assert all(row["delta/good"] != 0.0 for row in rows[1:])
    learner.save(tmp_path / "step-4")
    expected = run(learner, corpus, 4, 7)
    learner.close()
    other = learner_of(keys, model_folder, **LAYOUTS[case]["config"])
    assert other.load(tmp_path / "step-4") == 4
    assert run(other, corpus, 4, 7) == expected
    other.close()


def test_two_adapters_are_one_model(tmp_path: Path, model_folder: Path) -> None:
    keys = options(tmp_path)
    learner = learner_of(keys, model_folder, lora=LoraConfig(rank=4), optimizer=adamw())
    assert learner._u.policy is learner._w.policy
    names = [{name for name, _ in side.weights()} for side in (learner._u, learner._w)]
    assert not names[0] & names[1]
    assert {name.replace(".u.", ".w.") for name in names[0]} == names[1]
    run(learner, corpus_of(keys, model_folder), 0, 1)
    for side in (learner._u, learner._w):
        assert {id(weight) for weight in side.optimizer.state} == {id(weight) for _, weight in side.weights()}


def test_a_source_missing_from_a_batch(tmp_path: Path, model_folder: Path) -> None:
    keys = options(tmp_path)
    corpus = corpus_of(keys, model_folder)
    learner = learner_of(keys, model_folder, optimizer=adamw())
    one = job(0, len(corpus.train), len(corpus.validation))
    without = np.flatnonzero(corpus.source != 2)[:12]
    row = learner.step(type(one)(without, one.validation, 0, 20))
    assert np.isnan(row["delta/words"])
    assert np.isfinite(learner.weights.probs).all()
    assert learner.weights.probs.sum() == pytest.approx(1.0)


def test_what_cannot_be_is_refused(tmp_path: Path, model_folder: Path) -> None:
    keys = options(tmp_path)
    with pytest.raises(ModelError, match="keep one"):
        learner_of(keys, model_folder, optimizer=adamw(name="lisa"))
    learner = learner_of(keys, model_folder, optimizer=adamw())
    learner.save(tmp_path / "saved")
    more = [*keys["sources"], write(tmp_path / "more.jsonl", sums(700, 3))]
    with pytest.raises(LearnerError, match="is of the sources"):
        learner_of(keys | {"sources": more}, model_folder, optimizer=adamw()).load(tmp_path / "saved")
