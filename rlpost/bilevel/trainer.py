"""A whole ScaleBiO run: read, learn the source weights, fine-tune by them and by uniform ones, write it all down.

The run folder gets ``source_weights.json`` (the weights, their way over the steps, the comparison), a row of
``metrics.jsonl`` a step, checkpoints, and ``weighted/``, the model fine-tuned by the learned weights. Left out: what a
step does (learner.py).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from rlpost.bilevel.data import Corpus, DataError, EnvError, encode, read
from rlpost.bilevel.finetune import TestResult, batches, draw, evaluate
from rlpost.bilevel.learner import BilevelActor, BilevelStep, side_config
from rlpost.cluster import ray_cluster
from rlpost.faults import RunError
from rlpost.learner.actor import LearnerActor
from rlpost.learner.batch import LearnerSetup
from rlpost.learner.errors import ModelError
from rlpost.learner.group import LearnerGroup
from rlpost.placement import place
from rlpost.progress import Progress
from rlpost.recipe import LoadedRecipe
from rlpost.remote import value_of
from rlpost.report import MetricsWriter, read_metrics
from rlpost.report.files import SOURCE_WEIGHTS, replace_text
from rlpost.rollout.chat import ChatError, load_format
from rlpost.runfolder import RunFolder
from rlpost.seats import Seats, place_in_cluster, reserve
from rlpost.session import first_model


def learn_weights(
    loaded: LoadedRecipe, folder: RunFolder, progress: Progress, resume: tuple[int, Path] | None = None
) -> None:
    """Run it; ``resume`` is the number of steps done and their checkpoint.

    Raises:
        RunError: bad data (nothing has been started then), or a fault the run cannot go on with.
    """
    try:
        run = _Run(loaded, folder, progress)
    except (DataError, EnvError, ChatError, ModelError) as error:
        raise RunError(str(error)) from error
    with ray_cluster(loaded.recipe.cluster.address, loaded.packages) as ray_is_up:
        progress.phase("starting Ray and the learner")
        ray_is_up()
        with reserve(place_in_cluster(loaded.recipe, rollouts=False)) as run.seats:
            run.learn(resume)
            run.finish()


class _Run:
    """What a run holds on to; made before anything is started."""

    def __init__(self, loaded: LoadedRecipe, folder: RunFolder, progress: Progress) -> None:
        self._loaded, self._folder, self._progress = loaded, folder, progress
        recipe = self._recipe = loaded.recipe
        self._config = loaded.built.config
        place(recipe, rollouts=False)  # what cannot be is refused before anything starts
        self.seats: Seats
        rows = read(self._config, loaded.folder, progress.note)
        self._model = first_model(loaded, folder, progress)
        rollout = recipe.rollout
        trust = recipe.model.trust_remote_code
        chat = load_format(self._model, rollout.chat, rollout.observation_tokens, rollout.separator, trust)
        self._corpus: Corpus = encode(rows, chat, rollout.max_context, progress.note)

    def learn(self, resume: tuple[int, Path] | None) -> None:
        """All steps of (u, w, weights)."""
        recipe = self._recipe
        first = resume[0] if resume else 0
        group = self._group(BilevelActor)
        metrics = MetricsWriter(self._folder.path, recipe.save.tensorboard, first)
        try:
            corpus = replace(self._corpus, test=[])
            group.call("receiving the examples", BilevelActor.receive, value_of(ray.put(corpus)))
            group.wait_ready()
            if resume is not None:
                group.load(resume[1])
            for step in range(first, recipe.steps):
                started = time.monotonic()
                row = group.call(f"step {step}", BilevelActor.step, self._examples_of(step))[0]
                row = {"step": step, **row, "time/step_s": time.monotonic() - started}
                metrics.write(row)
                self._progress.step(row)
                done = step + 1
                if done == recipe.steps or (recipe.save.every and done % recipe.save.every == 0):
                    group.save(self._folder.checkpoint(done))
                    self._folder.prune_checkpoints()
        finally:
            metrics.close()
            group.close()
        self._write({})

    def finish(self) -> None:
        """The final fine-tunings and their comparison."""
        total = len(self._corpus.train) if self._config.sft_examples is None else self._config.sft_examples
        if total == 0:
            return
        uniform = np.full(len(self._corpus.names), 1 / len(self._corpus.names))
        results: dict[str, TestResult] = {}
        arms = {"weighted": self._weights(), "uniform": uniform}
        if not self._corpus.test:
            self._progress.note("no algorithm.test: fine-tuned by the learned weights only, and compared with nothing")
            del arms["uniform"]
        for name, probs in arms.items():
            self._progress.phase(f"fine-tuning by {name} weights")
            self._fine_tune(name, probs, total, results)
        for name, result in results.items():
            self._progress.note(
                f"test set, {name}: loss {result.loss:.4f}, a token right {result.token_accuracy:.1%}, "
                f"a whole answer right {result.answer_accuracy:.1%}"
            )
        self._write({name: asdict(result) for name, result in results.items()})

    def _fine_tune(self, name: str, probs: NDArray[np.float64], total: int, results: dict[str, TestResult]) -> None:
        seed, size = self._recipe.seed, self._config.batch_size
        group = self._group()
        try:
            group.wait_ready()
            if self._corpus.test and "before" not in results:
                results["before"] = evaluate(group.score, self._corpus.test)
            for batch in batches(draw(self._corpus, probs, total, seed), size, seed):
                refs = [ray.put(trajectory) for trajectory in batch.trajectories]
                group.learn(refs, replace(batch, trajectories=[]))
            if self._corpus.test:
                results[name] = evaluate(group.score, self._corpus.test)
            if name == "weighted":
                group.save(self._folder.path / name)
        finally:
            group.close()

    def _group(self, actor: type[LearnerActor] = LearnerActor) -> LearnerGroup:
        """The bilevel learner, or a plain one for a fine-tuning."""
        recipe = self._recipe
        config = side_config(recipe.learner, self._config.layout)
        if actor is LearnerActor and self._config.sft_lr is not None:
            optimizer = config.optimizer.model_copy(update={"lr": self._config.sft_lr})
            config = config.model_copy(update={"optimizer": optimizer})
        setup = LearnerSetup(
            folder=self._model,
            config=config,
            algorithm=self._loaded.algorithm,
            algorithm_options=self._loaded.algorithm_options,
            trust_remote_code=recipe.model.trust_remote_code,
            seed=recipe.seed,
            collective_timeout_s=recipe.cluster.deadline_s,
            max_context=recipe.rollout.max_context,
        )
        deadline_s = recipe.cluster.deadline_s
        return LearnerGroup(setup, self.seats.learner, deadline_s, actor=actor)

    def _examples_of(self, step: int) -> BilevelStep:
        size, seed = self._config.batch_size, self._recipe.seed
        return BilevelStep(
            train=examples_of_step(len(self._corpus.train), size, step, (seed, 0)),
            validation=examples_of_step(len(self._corpus.validation), size, step, (seed, 1)),
            step=step,
            steps_total=self._recipe.steps,
        )

    def _weights(self) -> NDArray[np.float64]:
        row = read_metrics(self._folder.path)[-1]
        return np.array([row[f"weight/{name}"] for name in self._corpus.names])

    def _write(self, final: Mapping[str, Any]) -> None:
        rows = read_metrics(self._folder.path)
        names = self._corpus.names
        content = {
            "weights": dict(zip(names, self._weights().tolist(), strict=True)) if rows else {},
            "examples": {name: int((self._corpus.source == place).sum()) for place, name in enumerate(names)},
            "steps": [row["step"] + 1 for row in rows],
            "trajectory": {name: [row[f"weight/{name}"] for row in rows] for name in names},
            "test": dict(final),
        }
        replace_text(self._folder.path / SOURCE_WEIGHTS, json.dumps(content, indent=1) + "\n")


def examples_of_step(count: int, size: int, step: int, seed: tuple[int, ...]) -> NDArray[np.int64]:
    """(size,) indices below ``count``: shuffled passes over all of them, one after the other, cut at this step."""
    places = np.arange(step * size, (step + 1) * size)
    orders = {
        one: np.random.default_rng([*seed, one]).permutation(count) for one in np.unique(places // count).tolist()
    }
    return np.array([orders[place // count][place % count] for place in places.tolist()], dtype=np.int64)
