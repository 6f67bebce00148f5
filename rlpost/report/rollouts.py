"""``rollouts/step-000012.jsonl``: a sample of each step's trajectories, one JSON object each, with all that was known.

Left out: choosing by content. The first trajectories of a step are written, so that groups stay together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlpost.report.files import ROLLOUTS, read_json_lines, replace_text
from rlpost.report.metrics import plain
from rlpost.rollout.trajectory import Trajectory

Decode = Callable[[list[int]], list[str]]
"""Token ids to one display string a token; TokenDisplay makes one from a tokenizer."""

DECIMALS = 8
"""Log-probabilities are rounded to this many decimals: finer than float32 for all but the surest tokens."""


class Learned(Protocol):
    """What the learner said of M trajectories.

    ``kept``: indices of those it learned from. ``old_logprobs``: one entry a trajectory, (T,) float32 log-probs of the
    learner at the start of the step, NaN where not policy, or ``None`` where they were not computed.
    """

    @property
    def kept(self) -> NDArray[np.int64]: ...
    @property
    def old_logprobs(self) -> Sequence[NDArray[np.float32] | None]: ...


class RolloutWriter:
    """Writes one file a step.

    Args:
        folder: the run folder; ``rollouts/`` is made in it.
        decode: one display string a token id.
        limit: at most this many trajectories a step, the first ones; 0 writes nothing, ``None`` all.
        first_step: as for MetricsWriter: files of this step and later ones are removed. ``None`` keeps all.
    """

    def __init__(self, folder: Path, decode: Decode, limit: int | None = None, first_step: int | None = None) -> None:
        self._folder = folder / ROLLOUTS
        self._decode = decode
        self._limit = limit
        self._folder.mkdir(exist_ok=True)
        if first_step is not None:
            for step, path in rollout_files(folder):
                if step >= first_step:
                    path.unlink()

    def write(
        self,
        step: int,
        trajectories: Sequence[Trajectory],
        advantages: Sequence[float] | NDArray[np.float64],
        learned: Learned,
    ) -> Path | None:
        """Write the step's file, whole or not at all; its path, or ``None`` where the limit is 0.

        Args:
            step: its number.
            trajectories: M trajectories.
            advantages: (M,); NaN where a trajectory has none.
            learned: what the learner said of the same M.

        Raises:
            ValueError: the lengths disagree.
        """
        if not len(trajectories) == len(advantages) == len(learned.old_logprobs):
            raise ValueError(
                f"{len(trajectories)} trajectories, {len(advantages)} advantages, {len(learned.old_logprobs)} log-probs"
            )
        if self._limit == 0:
            return None
        kept = {int(index) for index in learned.kept}
        lines = []
        for index, trajectory in enumerate(trajectories[: self._limit]):
            tokens = self._decode(trajectory.token_ids.tolist())
            record = rollout_record(
                step, trajectory, tokens, float(advantages[index]), index in kept, learned.old_logprobs[index]
            )
            lines.append(json.dumps(record, allow_nan=False) + "\n")
        path = self._folder / f"step-{step:06d}.jsonl"
        replace_text(path, "".join(lines))
        return path


def rollout_record(
    step: int,
    trajectory: Trajectory,
    tokens: Sequence[str],
    advantage: float | None,
    kept: bool,
    learner_logprobs: NDArray[np.float32] | None,
) -> dict[str, Any]:
    """One trajectory of T tokens as plain JSON values: numbers that are not finite are null.

    Raises:
        ValueError: ``tokens`` or ``learner_logprobs`` is not of length T.
    """
    length = len(trajectory)
    if len(tokens) != length or (learner_logprobs is not None and len(learner_logprobs) != length):
        raise ValueError(f"task '{trajectory.task_id}': {length} tokens, {len(tokens)} display strings or log-probs")
    return {
        "step": step,
        "task_id": trajectory.task_id,
        "group_id": trajectory.group_id,
        "index": trajectory.index,
        "seed": trajectory.seed,
        "source": trajectory.source,
        "scenario": trajectory.scenario,
        "difficulty": trajectory.difficulty,
        "reward": plain(float(trajectory.reward)),
        "reward_parts": {name: plain(value) for name, value in trajectory.reward_parts.items()},
        "success": bool(trajectory.success),
        "stop": str(trajectory.stop),
        "advantage": None if advantage is None else plain(float(advantage)),
        "kept": kept,
        "text": "".join(tokens),
        "turns": [[turn.start, turn.end, turn.truncated] for turn in trajectory.turns],
        "token_ids": trajectory.token_ids.tolist(),
        "tokens": list(tokens),
        "policy_mask": trajectory.policy_mask.astype(int).tolist(),
        "rollout_logprobs": _logprobs(trajectory.rollout_logprobs),
        "learner_logprobs": [None] * length if learner_logprobs is None else _logprobs(learner_logprobs),
        "versions": trajectory.versions.tolist(),
        "metrics": {name: plain(value) for name, value in trajectory.metrics.items()},
        "error": trajectory.error,
        "wall_s": round(float(trajectory.wall_s), 3),
    }


def rollout_files(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of every rollout file in a run folder, by step."""
    found = []
    for path in (folder / ROLLOUTS).glob("step-*.jsonl"):
        match = re.fullmatch(r"step-(\d+)\.jsonl", path.name)
        if match:
            found.append((int(match[1]), path))
    return sorted(found)


def read_rollouts(folder: Path, step: int | None = None) -> Iterator[dict[str, Any]]:
    """Records of one step, or of all steps in order, as ``rollout_record`` made them.

    Raises:
        ReportError: a damaged line; the message names file and line.
    """
    for number, path in rollout_files(folder):
        if step is None or number == step:
            yield from read_json_lines(path)


def _logprobs(values: NDArray[np.float32]) -> list[float | None]:
    rounded = values.astype(np.float64).round(DECIMALS)
    return [value if finite else None for value, finite in zip(rounded.tolist(), np.isfinite(values), strict=True)]
