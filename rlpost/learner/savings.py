"""What the selection of samples came to in one step: how much was packed and learned from, and the seconds it saved.

Left out: what was selected, which the algorithm's own report says.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rlpost.learner.batch import StepBatch
from rlpost.learner.views import FlatBatch, learnable, learned_length


def volume(flat: FlatBatch, samples: int, regularized: bool) -> dict[str, float]:
    """Kept samples, tokens of their packed sequences, and policy tokens whose loss can move the policy: where it is not
    ``regularized``, those with an advantage of 0 cannot."""
    counted = flat.mask if regularized else flat.mask & (flat.advantages != 0)
    return {
        "samples/kept": float(samples),
        "tokens/packed": float(len(flat.policy)),
        "tokens/learned": float(counted.sum()),
    }


def seconds_saved(
    batch: StepBatch, kept: NDArray[np.int64], metrics: Mapping[str, float], scores_anyway: bool, prompts_shared: bool
) -> float:
    """Seconds this step would have taken more with every sample kept and no token selection: an estimate from its own
    seconds a token. Negative where ranking tokens cost more than dropped samples saved.

    Args:
        batch: the step's rollouts.
        kept: which were learned from.
        metrics: ``time/old_s``, ``time/update_s`` and ``time/optimizer_s`` of the step.
        scores_anyway: whether it would score old log-probs without any selection.
        prompts_shared: whether a group's prompt goes through the model once.
    """
    everything = np.array([index for index, one in enumerate(batch.trajectories) if learnable(one)])
    ratio = _computed(batch, everything, prompts_shared) / _computed(batch, kept, prompts_shared)
    scoring, passes = metrics["time/old_s"], metrics["time/update_s"] - metrics["time/optimizer_s"]
    return (passes + (scoring if scores_anyway else 0.0)) * ratio - passes - scoring


def _computed(batch: StepBatch, samples: NDArray[np.int64], prompts_shared: bool) -> int:
    """Positions of these samples that go through the model."""
    chosen = [batch.trajectories[index] for index in samples]
    lengths = np.array([learned_length(one) for one in chosen])
    if not prompts_shared:
        return int(lengths.sum())
    prompts = np.array([int(np.argmax(one.policy_mask)) for one in chosen])
    _, first = np.unique(batch.group_ids[samples], return_index=True)
    return int((lengths - prompts).sum() + prompts[first].sum())
