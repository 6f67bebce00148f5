"""Which curves the report shows, and their numbers as compact columns.

Charts are named here once, as data; drawing is the page's. A metric that no chart names gets a small chart of its own,
so an environment's or an algorithm's numbers appear without anybody listing them. Left out: smoothing (the page's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

DIGITS = 6
"""Significant digits of an embedded number."""


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart.

    Attributes:
        title: heading.
        series: (metric key, label) of each line.
        hint: one sentence for readers who do not know the quantity.
        form: ``line``, or ``stack`` for parts of a whole.
        log: start with a logarithmic axis.
        unit: ``share`` (0..1, shown in per cent), ``seconds``, ``count`` or empty.
        band: key of a standard deviation drawn around the first series.
        main: drawn large, first.
    """

    title: str
    series: tuple[tuple[str, str], ...]
    hint: str
    form: str = "line"
    log: bool = False
    unit: str = ""
    band: str = ""
    main: bool = False


CHARTS = (
    Chart(
        "Success",
        (("success/mean", "training rollouts"),),
        "Share of episodes that solved their task. Dots with bars: held-out evaluations with 95 % intervals.",
        unit="share",
        main=True,
    ),
    Chart(
        "Reward",
        (("reward/mean", "mean"),),
        "Mean reward of the step's episodes; the band is one standard deviation.",
        band="reward/std",
        main=True,
    ),
    Chart("Loss", (("loss", "loss"),), "The surrogate that is minimised. It need not fall while the reward rises."),
    Chart(
        "Entropy",
        (("entropy", "nats a token"),),
        "Mean entropy of the policy over its own tokens. Near zero, nothing new is tried any more.",
    ),
    Chart(
        "KL divergence",
        (("kl_old", "updates"), ("offpolicy/kl", "off-policy")),
        "How far the policy has moved from the step's start, and from the weights that sampled; nats a token.",
    ),
    Chart("Gradient norm", (("grad_norm", "before clipping"),), "Largest norm of the step's updates.", log=True),
    Chart(
        "Learner and engine gap",
        (("gap/logprob_abs", "|Δ log-prob|"), ("gap/kl", "KL")),
        "Both score the same tokens with the same weights after every publication; a jump means a broken sync.",
        log=True,
    ),
    Chart("Clipped tokens", (("clip_fraction", "share"),), "Policy tokens whose ratio was clipped.", unit="share"),
    Chart(
        "Effective sample size",
        (("offpolicy/ess", "share"),),
        "(Σw)²/(n Σw²) of the off-policy weights; 1 means on-policy.",
        unit="share",
    ),
    Chart(
        "Time of a step",
        (("time/rollout_s", "rollouts"), ("time/learn_s", "learning"), ("time/sync_s", "weight sync")),
        "Seconds, stacked; the line is the whole step.",
        form="stack",
        unit="seconds",
        band="time/step_s",
    ),
    Chart(
        "Tokens",
        (("tokens/rollout", "sampled"), ("tokens/learned", "learned from")),
        "Policy tokens of the step.",
        unit="count",
    ),
    Chart(
        "Episodes",
        (("episodes", "played"), ("episodes/failed", "failed")),
        "Episodes of the step, and those lost to a fault.",
        unit="count",
    ),
)

FAMILIES = {
    "weight/": Chart(
        "Source weights",
        (),
        "How much each data source counts; together they are 1.",
        form="stack",
        unit="share",
        main=True,
    ),
    "delta/": Chart(
        "Loss of w minus loss of u",
        (),
        "By source, nats a token. Below the average: the model that sees the validation set does better there, and the "
        "source gains weight.",
    ),
    "stop/": Chart("Stop reasons", (), "Why episodes ended.", form="stack", unit="count"),
}
"""Charts whose series are all keys with a prefix, whatever they are called."""


def curves(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the page draws: ``{"columns": {key: [number or null, ...]}, "charts": [...], "more": [...]}``.

    ``charts`` are the named ones of which there is any number; ``more`` are those among them whose numbers never change
    (nothing failed, nothing was off-policy), and those of all other numeric keys.
    """
    columns = _columns(rows)
    known = [chart for chart in CHARTS if any(key in columns for key, _ in chart.series)]
    charts = [chart for chart in known if chart.main or _moves(chart, columns)]
    named = {key for chart in CHARTS for key in (*dict(chart.series), chart.band)} | {"step", "policy_version"}
    rest = [key for key in columns if key not in named]
    more = [chart for chart in known if chart not in charts]
    for prefix, family in FAMILIES.items():
        members = tuple((key, key.removeprefix(prefix).replace("_", " ")) for key in rest if key.startswith(prefix))
        if members:
            (charts if family.main else more).append(replace(family, series=members))
    more += [Chart(key, ((key, key),), "") for key in rest if not key.startswith(tuple(FAMILIES))]
    return {
        "columns": columns,
        "charts": [asdict(chart) for chart in charts],
        "more": [asdict(chart) for chart in more],
    }


def _moves(chart: Chart, columns: dict[str, list[float | int | None]]) -> bool:
    """Whether any of a chart's lines is more than a constant; with a single step every line counts as moving."""
    lines = [columns[key] for key, _ in chart.series if key in columns]
    return any(len(line) < 2 or len({value for value in line if value is not None}) > 1 for line in lines)


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[float | int | None]]:
    """One column a key that is a number in some row; a row without it has null there."""
    keys = dict.fromkeys(key for row in rows for key, value in row.items() if _is_number(value))
    return {key: [_rounded(row.get(key)) for row in rows] for key in keys}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rounded(value: Any) -> float | int | None:
    if not _is_number(value):
        return None
    return value if isinstance(value, int) else float(f"{value:.{DIGITS}g}")
