"""The token sequence of one episode while it grows: ids are only ever appended.

Left out: text, and the episode's course.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlpost.rollout.engine import EngineError, Sample
from rlpost.rollout.trajectory import Turn


class Tape:
    """What was put before the policy and what it sampled, in one contiguous sequence of T tokens.

    Args:
        scored: whether every sampled token must come with its log-probability.

    Attributes:
        token_ids: T ids so far.
        turns: the assistant turns so far.
    """

    def __init__(self, scored: bool = True) -> None:
        self._scored = scored
        self.token_ids: list[int] = []
        self.turns: list[Turn] = []
        self._samples: list[Sample] = []

    def __len__(self) -> int:
        return len(self.token_ids)

    def add_context(self, token_ids: list[int]) -> None:
        """Append ids that the policy did not sample."""
        self.token_ids += token_ids

    def add_sample(self, sample: Sample) -> None:
        """Append one turn as it was sampled.

        Raises:
            EngineError: arrays of different lengths, a log-probability that is not finite or above zero, or nothing
                sampled although it was not aborted.
        """
        count = len(sample.token_ids)
        if not (count == len(sample.logprobs) == len(sample.versions)):
            raise EngineError(
                f"the engine returned {count} tokens, {len(sample.logprobs)} log-probs, {len(sample.versions)} versions"
            )
        if count == 0 and not sample.aborted:
            raise EngineError("the engine sampled no token and did not say why")
        if self._scored and not (np.isfinite(sample.logprobs).all() and np.all(sample.logprobs <= 1e-5)):
            raise EngineError(
                "a sampled token's log-probability is not finite or above zero: are the weights sound? "
                f"(the {count} tokens' log-probs span {sample.logprobs.min()} to {sample.logprobs.max()})"
            )
        start = len(self.token_ids)
        self.token_ids += sample.token_ids.tolist()
        self.turns.append(Turn(start, start + count, truncated=not sample.stopped))
        self._samples.append(sample)

    def arrays(self) -> tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.float32], NDArray[np.int32]]:
        """``token_ids``, ``policy_mask``, ``rollout_logprobs`` and ``versions`` of a Trajectory, (T,) each."""
        mask = np.zeros(len(self), dtype=np.bool_)
        logprobs = np.full(len(self), np.nan, dtype=np.float32)
        versions = np.full(len(self), -1, dtype=np.int32)
        for turn, sample in zip(self.turns, self._samples, strict=True):
            mask[turn.start : turn.end] = True
            logprobs[turn.start : turn.end] = sample.logprobs
            versions[turn.start : turn.end] = sample.versions
        return np.array(self.token_ids, dtype=np.int32), mask, logprobs, versions
