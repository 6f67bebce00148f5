"""One rank of the bilevel learner: u, w and the source weights, moved once each a step.

    layout adapters      one frozen base, u and w are two LoRA adapters on it that start alike
    layout two_copies    two whole models: the one declared exception to a single copy of the weights

Both sides minimise the same kind of loss (``ScaleBiO.loss``), with other coefficients and, for w, the validation batch
beside the training batch. Mean losses before the step come out of the very forward passes of the update. Left out:
which examples a step takes (trainer.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rlpost.algorithms import registry
from rlpost.algorithms.base import StepConstants
from rlpost.algorithms.scalebio import (
    ScaleBiO,
    SourceWeights,
    source_means,
    token_mean_coefficients,
    train_coefficients,
)
from rlpost.bilevel.data import Corpus, Example
from rlpost.learner import lora
from rlpost.learner.actor import LearnerActor
from rlpost.learner.batch import LearnerError, LearnerSetup
from rlpost.learner.checkpoint import Part, read_record, read_state, write_state
from rlpost.learner.config import LearnerConfig, LoraConfig
from rlpost.learner.lisa import Lisa
from rlpost.learner.model import load_model
from rlpost.learner.optimizers import learning_rate, make_optimizer, set_learning_rate
from rlpost.learner.policy import PolicyModel
from rlpost.learner.sharding import Ranks
from rlpost.learner.update import Updater
from rlpost.learner.views import FlatBatch

SIDES = ("u", "w")


@dataclass(frozen=True, slots=True)
class BilevelStep:
    """One step: which examples, and where in the run it stands.

    Attributes:
        train: (B,) int64, indices of training examples.
        validation: (V,) int64, indices of validation examples.
        step, steps_total: 0-based number of this step, and how many there are.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    step: int
    steps_total: int


class _Side:
    """u or w: its weights, their optimizer, and how it is made the one that computes."""

    def __init__(self, name: str, policy: PolicyModel, ranks: Ranks, setup: LearnerSetup, algorithm: ScaleBiO) -> None:
        self.name, self.policy = name, policy
        optimizer = setup.config.optimizer
        self.optimizer = make_optimizer(self.weights(), optimizer)
        seed = 2 * setup.seed + SIDES.index(name)  # u and w draw their layers independently
        self.lisa = Lisa(policy, self.optimizer, optimizer.lisa, seed) if optimizer.lisa else None
        self.updater = Updater(policy, ranks, algorithm, self.optimizer, setup.config)

    def weights(self) -> list[tuple[str, torch.nn.Parameter]]:
        """What this side trains, now or with other layers drawn."""
        if not self.policy.has_adapters:
            self.policy.settle()
            return list(self.policy.model.named_parameters())
        own = (f".lora_A.{self.name}.", f".lora_B.{self.name}.")
        return [(name, weight) for name, weight in self.policy.trainable() if any(part in name for part in own)]

    def update(
        self, examples: Sequence[Example], coefficients: NDArray[np.float64], job: BilevelStep
    ) -> tuple[NDArray[np.float64], dict[str, float]]:
        """One optimizer step on sum of coefficient x mean loss; the (B,) mean losses before it, and its metrics."""
        if self.lisa is not None:
            self.lisa.activate(job.step)
        lora.use(self.policy.model, self.name)
        made, rng = [example.trajectory() for example in examples], np.random.default_rng(0)  # views draw nothing
        views = [self.updater.algorithm.views(one, rng) for one in made]
        flat = FlatBatch.of(self.policy.reading, made, views, coefficients, self.policy.device)
        tokens = sum(example.tokens for example in examples)
        longest = max(len(example.token_ids) for example in examples)
        constants = StepConstants(len(examples), tokens, len(examples), longest, policy_tokens=tokens)
        where = f"step {job.step}, {self.name}"
        metrics = self.updater.update(flat, list(range(len(examples))), constants, True, 1.0, where)
        assert flat.old_logprobs is not None  # filled in by the update: the log-probs before it
        summed = torch.zeros(len(examples), dtype=torch.float64, device=flat.old_logprobs.device)
        summed.index_add_(0, flat.sequence, flat.old_logprobs.double() * flat.policy)
        return -(summed / flat.sequence_tokens.double()).cpu().numpy(), metrics


class BilevelLearner:
    """Learns source weights; on several ranks every method is a collective.

    Args:
        setup: as the learner's; its algorithm is a ``ScaleBiO``.
        corpus: what is trained on, the same on every rank.
        rank, world: this rank of how many.

    Attributes:
        weights: the source weights, the same on every rank.

    Raises:
        LearnerError, ModelError: as ``Learner``.
    """

    def __init__(self, setup: LearnerSetup, corpus: Corpus, rank: int = 0, world: int = 1) -> None:
        assert setup.algorithm is not None
        algorithm = registry.build(setup.algorithm, setup.algorithm_options)
        assert isinstance(algorithm, ScaleBiO)
        self._scalebio = algorithm.config
        self._setup = setup = replace(setup, config=side_config(setup.config, self._scalebio.layout))
        self._corpus = corpus
        self.weights = SourceWeights(len(corpus.names))
        self.steps_done = 0
        kind = setup.config.on_device(torch.cuda.is_available())
        if kind == "cuda" and not torch.cuda.is_available():
            raise LearnerError("learner.device: cuda, but this process sees no GPU; set learner.device: cpu")
        device = Ranks.device_of(kind, rank)
        sharded = world > 1 or setup.config.compute_dtype(device.type) != "fp32"
        self._ranks = Ranks(rank, world, device, setup.rendezvous, setup.collective_timeout_s, sharded)
        how = (setup.folder, setup.config, self._ranks, setup.trust_remote_code, setup.seed)
        shared = setup.config.lora is not None
        load = partial(load_model, *how, max_context=setup.max_context)
        policies = [load(adapters=SIDES)] * 2 if shared else [load() for _ in SIDES]
        self._u, self._w = (
            _Side(name, policy, self._ranks, setup, algorithm) for name, policy in zip(SIDES, policies, strict=True)
        )

    def step(self, job: BilevelStep) -> dict[str, float]:
        """Move u, w and the source weights once; what is known of the state before the move, for the log.

        Raises:
            LearnerError: the gradient is not finite.
        """
        config, corpus, rates = self._scalebio, self._corpus, self._setup.config.optimizer
        when = (job.step, job.steps_total)
        for side in (self._u, self._w):
            set_learning_rate(side.optimizer, learning_rate(rates, *when))
        train = [corpus.train[index] for index in job.train]
        validation = [corpus.validation[index] for index in job.validation]
        sources, probs = corpus.source[job.train], self.weights.probs
        own = train_coefficients(probs, sources)
        beside = token_mean_coefficients(np.array([example.tokens for example in validation]))
        losses_u, metrics_u = self._u.update(train, own, job)
        losses_w, metrics_w = self._w.update(train + validation, np.concatenate([own, beside / config.alpha]), job)
        means = [source_means(losses, sources, len(probs)) for losses in (losses_u, losses_w[: len(train)])]
        delta = means[1] - means[0]
        if job.step == 0:  # u and w are still the same: what differs is rounding, and AdamW would make a step of it
            delta = delta * 0.0
        weights_rate = learning_rate(rates.model_copy(update={"lr": config.weights_lr}), *when)
        self.weights.update(delta, config.alpha, weights_rate)
        self.steps_done = job.step + 1
        return {
            "loss": float(beside @ losses_w[len(train) :]),
            "train_loss/u": float(own @ losses_u),
            "train_loss/w": float(own @ losses_w[: len(train)]),
            "grad_norm": metrics_w["grad_norm"],
            "grad_norm/u": metrics_u["grad_norm"],
            "lr": learning_rate(rates, *when),
            **{f"weight/{name}": float(value) for name, value in zip(corpus.names, self.weights.probs, strict=True)},
            **{f"delta/{name}": float(value) for name, value in zip(corpus.names, delta, strict=True)},
        }

    def save(self, folder: Path) -> None:
        """Write everything a later ``load`` needs."""
        record = {"steps_done": self.steps_done, "names": self._corpus.names, "source_weights": self.weights.state()}
        folder.mkdir(parents=True, exist_ok=True)
        write_state(folder, self._ranks, record, self._parts())

    def load(self, folder: Path) -> int:
        """Go on from a checkpoint, exactly; the number of steps it has behind it.

        Raises:
            LearnerError: it is of other sources.
        """
        record = read_record(folder)
        if record.get("names") != self._corpus.names:
            raise LearnerError(
                f"'{folder}' is of the sources {record.get('names')}, and the recipe has {self._corpus.names}"
            )
        self.weights.restore(record["source_weights"])
        read_state(folder, self._ranks, record, self._parts())
        self.steps_done = record["steps_done"]
        return self.steps_done

    def _parts(self) -> dict[str, Part]:
        return {side.name: Part(side.weights(), side.optimizer, side.weights()) for side in (self._u, self._w)}

    def close(self) -> None:
        """Leave the other ranks and free the models."""
        self._ranks.close()
        del self._u, self._w


def side_config(config: LearnerConfig, layout: str) -> LearnerConfig:
    """The learner's section as this layout means it: adapters, of the default kind where none are named, or none."""
    if layout == "two_copies":
        return config.model_copy(update={"lora": None})
    return config.model_copy(update={"lora": config.lora or LoraConfig()})


class BilevelActor(LearnerActor):
    """One rank as an actor process; the corpus comes first, then ``start``."""

    def receive(self, corpus: Corpus) -> None:
        """Keep the examples."""
        self._corpus = corpus

    def start(self, rendezvous: str) -> int:
        """Load the models; how many sources there are."""
        setup = replace(self._setup, rendezvous=rendezvous)
        self._bilevel = BilevelLearner(setup, self._corpus, self._rank, self._world)
        return len(self._corpus.names)

    def step(self, job: BilevelStep) -> dict[str, float]:
        """See ``BilevelLearner.step``."""
        return self._bilevel.step(job)

    def save(self, folder: str) -> None:
        """See ``BilevelLearner.save``."""
        self._bilevel.save(Path(folder))

    def load(self, folder: str) -> int:
        """See ``BilevelLearner.load``."""
        return self._bilevel.load(Path(folder))
