"""What runs of several methods on the same seeds come to, against the first of them.

A line is one run: ``evaluations``, (steps done, share solved) with the one before training first, and per-step columns
of metrics.jsonl. "Reached" is the first mean of three evaluations at or above a share (1 unless said) of the first
method's mean over its last tenth, on the same seed. Used by d3s_cpu.py and d3s_gpu.py. Left out: running anything.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

SMOOTH = 3
COLUMNS = (
    "success/mean", "time/learn_s", "time/step_s", "time/rollout_s", "time/sync_s", "tokens/packed", "tokens/learned",
    "tokens/rollout", "samples/kept", "select/zero_variance_groups", "select/variance_before", "select/variance_after",
    "selection_gain", "time/saved_s", "entropy", "grad_norm",
)  # fmt: skip
TITLES = (
    "method", "success before", "final success", "reached", "steps to reach", "learned tokens to reach (k)",
    "of them with loss (k)", "learner s to reach", "wall s to reach", "rollout tokens to reach (k)",
    "learner s, relative", "learned tokens, relative", "learned tokens a run (k)", "learner s a run",
)  # fmt: skip
Line = Mapping[str, Any]


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """The columns that are kept of a run's rows; None where a step learned nothing."""
    return {name: [row.get(name) for row in rows] for name in COLUMNS}


def final(line: Line) -> float:
    """Mean success of the evaluations in the last tenth of the run."""
    steps = line["evaluations"][-1][0]
    return statistics.mean(success for step, success in line["evaluations"] if step > 0.9 * steps)


def reached(line: Line, goal: float) -> int | None:
    """Steps done at the first evaluation whose mean with the two before it is at or above ``goal``."""
    found = line["evaluations"]
    for end in range(SMOOTH, len(found) + 1):
        if statistics.mean(success for _, success in found[end - SMOOTH : end]) >= goal:
            return int(found[end - 1][0])
    return None


def spread(values: Sequence[float], form: str = "{:.3f}") -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{form.format(statistics.mean(values))} ± {form.format(deviation)}" if values else "-"


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [titles, ["---"] * len(titles), *rows])


def comparison(found: Mapping[str, Mapping[int, Line]], share: float = 1.0) -> str:
    """A Markdown table over the seeds that every method has; ``found`` is lines by method and seed, the base first."""
    if not found:
        return "no run is finished yet"
    base, *_ = found.values()
    common = sorted(set.intersection(*(set(runs) for runs in found.values())))
    if not common:
        return "no seed is finished for all methods yet"
    goals = {seed: share * final(base[seed]) for seed in common}
    rows = [_row(method, runs, base, goals) for method, runs in found.items()]
    goal = f"reached: {share:.0%} of the first method's final success"
    return f"Mean ± standard deviation over seeds {common}; {goal}\n\n{markdown(TITLES, rows)}"


def _row(method: str, runs: Mapping[int, Line], base: Mapping[int, Line], goals: Mapping[int, float]) -> list[str]:
    ends = {seed: end for seed, goal in goals.items() if (end := reached(runs[seed], goal)) is not None}
    base_ends = {seed: reached(base[seed], goal) for seed, goal in goals.items()}
    pairs = [seed for seed in ends if base_ends[seed] is not None]

    def to_reach(name: str, scale: float = 1.0) -> list[float]:
        return [_sum(runs[seed], name, end) / scale for seed, end in ends.items()]

    def relative(name: str) -> list[float]:
        wholes = {seed: _sum(base[seed], name, base_ends[seed]) for seed in pairs}
        return [_sum(runs[seed], name, ends[seed]) / whole for seed, whole in wholes.items() if whole]

    return [
        method,
        spread([runs[seed]["evaluations"][0][1] for seed in goals]),
        spread([final(runs[seed]) for seed in goals]),
        f"{len(ends)} of {len(goals)}",
        spread([float(end) for end in ends.values()], "{:.0f}"),
        spread(to_reach("tokens/packed", 1e3), "{:.1f}"),
        spread(to_reach("tokens/learned", 1e3), "{:.1f}"),
        spread(to_reach("time/learn_s"), "{:.2f}"),
        spread(to_reach("time/step_s"), "{:.1f}"),
        spread(to_reach("tokens/rollout", 1e3), "{:.0f}"),
        spread(relative("time/learn_s"), "{:.2f}"),
        spread(relative("tokens/packed"), "{:.2f}"),
        spread([_sum(runs[seed], "tokens/packed", None) / 1e3 for seed in goals], "{:.1f}"),
        spread([_sum(runs[seed], "time/learn_s", None) for seed in goals], "{:.2f}"),
    ]


def _sum(line: Line, name: str, steps: int | None) -> float:
    return sum(value or 0.0 for value in line[name][:steps])
