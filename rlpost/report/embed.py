"""Rollouts in the compact form the page carries: every distinct token once, numbers rounded, runs instead of repeats.

Left out: the text of a rollout (the page joins its tokens), and compression (page.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from rlpost.report.files import read_json_lines
from rlpost.report.rollouts import rollout_files


class TokenPool:
    """Numbers every distinct (id, display string) pair, in order of appearance."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, str], int] = {}

    def number(self, token_ids: Sequence[int], tokens: Sequence[str]) -> list[int]:
        """The numbers of T tokens."""
        numbers = self._numbers
        return [numbers.setdefault(pair, len(numbers)) for pair in zip(token_ids, tokens, strict=True)]

    def dump(self) -> dict[str, list[Any]]:
        """Ids and display strings, by number."""
        return {"ids": [token for token, _ in self._numbers], "texts": [text for _, text in self._numbers]}


def embed_rollouts(folder: Path, max_rollouts: int, max_tokens: int) -> dict[str, Any]:
    """All of a run's logged rollouts, or as many as the caps allow: the same number from each step, its first ones, so
    that groups stay whole; where there are more steps than that, evenly spaced ones and the last.

    Returns:
        ``{"pool", "rollouts", "shown", "logged", "steps_shown", "steps_logged"}``; counts for the words above the list.
    """
    files = rollout_files(folder)
    chosen = spaced(files, max_rollouts)
    pool = TokenPool()
    rollouts: list[dict[str, Any]] = []
    logged = {step: _count_lines(path) for step, path in files}
    quota = fair_quota([logged[step] for step, _ in chosen], max_rollouts)
    for _, path in chosen:
        left = max_tokens // max(1, len(chosen))
        for position, record in enumerate(islice(read_json_lines(path), quota)):
            left -= len(record["token_ids"])
            if left < 0 and position > 0:
                break
            rollouts.append(compact(record, pool))
    return {
        "pool": pool.dump(),
        "rollouts": rollouts,
        "shown": len(rollouts),
        "logged": sum(logged.values()),
        "steps_shown": len(chosen),
        "steps_logged": len(files),
    }


def compact(record: dict[str, Any], pool: TokenPool) -> dict[str, Any]:
    """One record of ``rollouts/`` with short keys; per-token numbers are of policy tokens only, in order.

    ``t`` numbers in the pool; ``m`` lengths of runs of the mask, the first of them not policy; ``p`` rollout log-probs;
    ``d`` learner minus rollout, or null where the learner gave none; ``v`` runs ``[version, length]``.
    """
    policy = [place for place, on in enumerate(record["policy_mask"]) if on]
    return {
        "step": record["step"],
        "task": record["task_id"],
        "group": record["group_id"],
        "index": record["index"],
        "seed": str(record["seed"]),
        "source": record["source"],
        "reward": record["reward"],
        "parts": record["reward_parts"],
        "ok": record["success"],
        "stop": record["stop"],
        "adv": record["advantage"],
        "kept": record["kept"],
        "turns": record["turns"],
        "metrics": record["metrics"],
        "error": record["error"],
        "wall": record["wall_s"],
        "t": pool.number(record["token_ids"], record["tokens"]),
        "m": _mask_runs(record["policy_mask"]),
        "p": [_digits(record["rollout_logprobs"][place], 5) for place in policy],
        "d": _differences(record, policy),
        "v": [
            [version, sum(1 for _ in run)] for version, run in groupby(record["versions"][place] for place in policy)
        ],
    }


def spaced(items: Sequence[Any], count: int) -> list[Any]:
    """At most ``count`` items, evenly spaced, the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[(place + 1) * len(items) // count - 1] for place in range(count)]


def fair_quota(sizes: Sequence[int], total: int) -> int:
    """The largest q with sum(min(size, q)) <= total; at least 1."""
    low, high = 1, max(sizes, default=1)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(size, middle) for size in sizes) <= total:
            low = middle
        else:
            high = middle - 1
    return low


def _differences(record: dict[str, Any], policy: Iterable[int]) -> list[float | None] | None:
    """Learner minus rollout at the policy tokens."""
    learner, rollout = record["learner_logprobs"], record["rollout_logprobs"]
    found = [
        None if learner[place] is None or rollout[place] is None else _digits(learner[place] - rollout[place], 3)
        for place in policy
    ]
    return found if any(value is not None for value in found) else None


def _mask_runs(mask: Sequence[int]) -> list[int]:
    runs = [(bool(on), sum(1 for _ in run)) for on, run in groupby(mask)]
    lengths = [length for _, length in runs]
    return [0, *lengths] if runs and runs[0][0] else lengths


def _digits(value: float | None, digits: int) -> float | None:
    return None if value is None else float(f"{value:.{digits}g}")


def _count_lines(path: Path) -> int:
    """Lines of a file, without reading them as JSON."""
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
