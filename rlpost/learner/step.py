"""One learning step: select, score what is needed, then a few optimizer updates.

    samples → views → (old log-probs, entropies, reference) → tokens → epochs x minibatches of updates

With one update and nothing else to know beforehand there is no scoring pass: old log-probs are the current ones,
detached. Left out: what is selected and lost (the algorithm's), one update (update.py), and saving (learner.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rlpost.algorithms.base import Algorithm, Plan, StepConstants
from rlpost.learner.batch import LearnResult, StepBatch
from rlpost.learner.offpolicy import offpolicy_metrics
from rlpost.learner.optimizers import learning_rate, set_learning_rate
from rlpost.learner.rows import score_rows
from rlpost.learner.savings import seconds_saved, volume
from rlpost.learner.update import Updater
from rlpost.learner.views import FlatBatch, learnable

_TIMES = ("time/old_s", "time/update_s", "time/optimizer_s", "time/saved_s")
_NOTHING = dict.fromkeys(
    ("loss", "grad_norm", "updates", "samples/kept", "tokens/packed", "tokens/learned", *_TIMES), 0.0
) | {"skipped": 1.0}
"""Metrics of a step that learned nothing."""


def learn(updater: Updater, batch: StepBatch) -> LearnResult:
    """Learn from one batch of rollouts; a collective, every rank is given the same batch.

    Raises:
        LearnerError: the gradient is not finite; the weights are then those before the failed update.
        AlgorithmError: the algorithm cannot work with this batch.
    """
    algorithm, count = updater.algorithm, len(batch.trajectories)
    rate = learning_rate(updater.config.optimizer, batch.step, batch.steps_total)
    set_learning_rate(updater.optimizer, rate)
    chosen = algorithm.select_samples(batch.advantages, batch.group_ids, batch.progress, batch.seed)
    metrics = {"lr": rate} | algorithm.report(batch.advantages, batch.group_ids, chosen)
    kept = np.array([index for index in np.sort(chosen) if learnable(batch.trajectories[index])], dtype=np.int64)
    if note := _nothing_to_learn(updater, batch, kept):
        return LearnResult(metrics | _NOTHING, kept[:0], [None] * count, note)
    return _Step(updater, batch, kept).run(metrics)


def _nothing_to_learn(updater: Updater, batch: StepBatch, kept: NDArray[np.int64]) -> str:
    """Why this step makes no update, or nothing."""
    algorithm, count = updater.algorithm, len(batch.trajectories)
    if not len(kept):
        return f"none of {count} trajectories was worth learning from; the weights did not change"
    if not _regularized(algorithm) and not batch.advantages[kept].any():
        return f"the advantages of all {count} trajectories are 0; the weights did not change"
    return ""


def _regularized(algorithm: Algorithm) -> bool:
    """Whether a token with an advantage of 0 may still move the policy."""
    return algorithm.loss_entropies or "ref_logprobs" in algorithm.needs


@dataclass(slots=True)
class _Step:
    """A step that has something to learn from."""

    updater: Updater
    batch: StepBatch
    kept: NDArray[np.int64]

    def run(self, metrics: dict[str, float]) -> LearnResult:
        batch, algorithm = self.batch, self.updater.algorithm
        started = time.perf_counter()
        advantages = algorithm.kept_advantages(batch.trajectories, batch.advantages, batch.group_ids, self.kept)
        trajectories = [batch.trajectories[index] for index in self.kept]
        views = [
            algorithm.views(one, np.random.default_rng([batch.seed, int(index)]))
            for index, one in zip(self.kept, trajectories, strict=True)
        ]
        policy = self.updater.policy
        flat = FlatBatch.of(policy.reading, trajectories, views, advantages, policy.device)
        if batch.lag > 0 and flat.reading.causal:
            flat.offpolicy_cap = batch.offpolicy_cap
        updates = list(minibatches(len(self.kept), algorithm.plan, batch.seed))
        self._score(flat, single=len(updates) == 1)
        scored = time.perf_counter()
        metrics = metrics | self._updates(flat, updates)
        metrics["time/old_s"], metrics["time/update_s"] = scored - started, time.perf_counter() - scored
        metrics |= volume(flat, len(self.kept), _regularized(algorithm))
        scores_anyway = self._scores_anyway(flat, single=len(updates) == 1)
        metrics["time/saved_s"] = seconds_saved(batch, self.kept, metrics, scores_anyway, policy.reading.causal)
        old: list[NDArray[np.float32] | None] = [None] * len(batch.trajectories)
        if flat.old_logprobs is not None and flat.reading.causal:  # of masked views they compare with no rollout's
            metrics |= offpolicy_metrics(flat.old_logprobs, flat.rollout_logprobs, flat.policy)
            for index, values in zip(self.kept, flat.per_trajectory(flat.old_logprobs, trajectories), strict=True):
                old[index] = values
        note = "token selection left nothing to learn from; the weights did not change" if metrics["skipped"] else ""
        return LearnResult(metrics, self.kept, old, note)

    def _scores_anyway(self, flat: FlatBatch, single: bool) -> bool:
        """Whether old log-probs take a pass of their own, entropies or not: one update computes them itself."""
        return not single and (flat.offpolicy_cap is not None or "old_logprobs" in self.updater.algorithm.needs)

    def _score(self, flat: FlatBatch, single: bool) -> None:
        """Fill in what is needed of the weights as they are at the start of the step, and select tokens."""
        batch, updater, needs = self.batch, self.updater, self.updater.algorithm.needs
        how = (updater.policy, updater.ranks, flat.rows, updater.config.max_tokens_per_pack, batch.temperature)
        if "entropies" in needs or self._scores_anyway(flat, single):
            flat.old_logprobs, entropies = score_rows(*how)
            flat.entropies = entropies if "entropies" in needs else None
        if "ref_logprobs" in needs:
            with updater.policy.reference():
                flat.ref_logprobs, _ = score_rows(*how)
        selected = updater.algorithm.select_tokens(
            flat.advantages, flat.entropies, flat.policy, flat.sequence.long(), batch.progress
        )
        flat.mask = selected & flat.policy
        updater.ranks.settle()

    def _updates(self, flat: FlatBatch, updates: list[NDArray[np.int64]]) -> dict[str, float]:
        """Run the updates until the algorithm says stop; means over those that ran."""
        batch, algorithm = self.batch, self.updater.algorithm
        views = len(flat.response) // len(self.kept)
        nominal = max(1, round(batch.nominal_sequences / algorithm.plan.minibatches)) * views
        counted, sampled = _tokens_of_each(flat)
        seen: list[dict[str, float]] = []
        for trajectories in updates:
            members = flat.sequences_of(trajectories)
            tokens = int(counted[members].sum())
            if tokens == 0:
                continue
            constants = StepConstants(len(members), tokens, nominal, batch.max_tokens, int(sampled[members].sum()))
            fresh = len(updates) == 1
            where = f"step {batch.step}"
            seen.append(self.updater.update(flat, members, constants, fresh, batch.temperature, where))
            if algorithm.stop(seen[-1]):
                break
        if not seen:
            return dict(_NOTHING)
        sums = {name: sum(one[name] for one in seen) for name in seen[0]}
        means = {name: value / len(seen) for name, value in sums.items()}
        return means | {"time/optimizer_s": sums["time/optimizer_s"], "updates": float(len(seen)), "skipped": 0.0}


def _tokens_of_each(flat: FlatBatch) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(S,) counted tokens, and (S,) policy tokens, of each sequence."""
    sequence, count = flat.sequence.cpu().numpy(), len(flat.sequence_tokens)
    counted, sampled = (torch.stack([flat.mask, flat.policy])).cpu().numpy()
    return (
        np.bincount(sequence[counted], minlength=count),
        np.bincount(sequence[sampled], minlength=count),
    )


def minibatches(samples: int, plan: Plan, seed: int) -> Iterator[NDArray[np.int64]]:
    """Indices of each update of a step: every epoch a new shuffle, cut into parts of equal size (give or take one)."""
    for epoch in range(plan.epochs):
        order = np.random.default_rng([seed, epoch]).permutation(samples)
        yield from (part for part in np.array_split(order, plan.minibatches) if len(part))
