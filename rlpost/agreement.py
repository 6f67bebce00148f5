"""How far the log-probabilities of an engine and of the learner are apart on the same tokens at the same weights.

Two questions. The level: how large are the differences? And the slope: when the learner's log-probabilities change, do
the engine's change by as much? In bfloat16 the level hides whole updates, since rounding is larger than what they
change; the slope over changes accumulated since an earlier version does not. Left out: which tokens are compared, and
when (weights.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = Sequence[NDArray[np.float64]]
SLOPES = (0.8, 1.25)
"""A slope whose 95 % interval lies outside is a fault."""
_BLOCK = 8
"""Neighbouring tokens that are drawn together, as their errors go together."""
_DRAWS = 500
_ABOVE = 4.0


@dataclass(frozen=True, slots=True)
class Level:
    """Differences d = learner - engine of n log-probabilities (nats), p and q their exponentials.

    Attributes:
        logprob_abs: mean |d|.
        probs_diff: mean |p - q|; below 0.005 is usual, above 0.01 a fault in most set-ups.
        exp_abs: mean exp|d|; 1 to 1.03 is usual, above 1.05 worth a look.
        k3: mean exp(d) - 1 - d, an estimate of KL(engine || learner) at tokens that the engine drew; usually < 1e-3.
        js: mean Jensen-Shannon divergence of the two-way choice {this token, any other}.
    """

    logprob_abs: float
    probs_diff: float
    exp_abs: float
    k3: float
    js: float

    @classmethod
    def of(cls, learner: Rows, engine: Rows) -> Level:
        """Over all tokens of rows of the same lengths."""
        ours, theirs = np.concatenate(learner).astype(np.float64), np.concatenate(engine).astype(np.float64)
        gap = ours - theirs
        p, q = np.exp(np.minimum(ours, 0.0)), np.exp(np.minimum(theirs, 0.0))
        return cls(
            float(np.abs(gap).mean()),
            float(np.abs(p - q).mean()),
            float(np.exp(np.abs(gap)).mean()),
            float((np.exp(gap) - 1 - gap).mean()),
            float(_binary_js(p, q).mean()),
        )


@dataclass(frozen=True, slots=True)
class Slope:
    """The engine's change against the learner's, and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def wrong(self) -> bool:
        """Whether the interval says that the engine does not follow the learner."""
        return self.high < SLOPES[0] or self.low > SLOPES[1]


def slope(learner_before: Rows, learner: Rows, engine_before: Rows, engine: Rows) -> Slope | None:
    """The slope of changes between two versions; None while the learner's are not well above the rounding errors.

    Both changes carry rounding errors of about the same size, so the line through 0 is the one with the least squared
    distances at right angles (Deming's with equal variances):

        b = (Syy - Sxx + sqrt((Syy - Sxx)^2 + 4 Sxy^2)) / (2 Sxy),   x the learner's change, y the engine's

    Its interval is a bootstrap over blocks of neighbouring tokens. The errors' size is that of learner - engine at the
    earlier version; where Sxx is not ``_ABOVE`` times what they alone would give, nothing can be said yet.
    """
    blocks = []
    for before, after, theirs_before, theirs in zip(learner_before, learner, engine_before, engine, strict=True):
        x, y = np.asarray(after, np.float64) - before, np.asarray(theirs, np.float64) - theirs_before
        for start in range(0, len(x), _BLOCK):
            a, b = x[start : start + _BLOCK], y[start : start + _BLOCK]
            blocks.append((a @ a, b @ b, a @ b))
    sums = np.array(blocks).reshape(-1, 3)
    errors = sum(
        float(((np.asarray(a, np.float64) - b) ** 2).sum()) for a, b in zip(learner_before, engine_before, strict=True)
    )
    if not sums[:, 0].sum() > _ABOVE * errors:
        return None
    draw = np.random.default_rng(0)
    drawn = sums[draw.integers(0, len(sums), (_DRAWS, len(sums)))].sum(axis=1)
    angles = np.sort(_angle(drawn))
    low, high = angles[int(0.025 * _DRAWS)], angles[int(0.975 * _DRAWS)]
    return Slope(*(float(np.tan(angle)) for angle in (_angle(sums.sum(axis=0)), low, high)))


def _angle(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """The line's angle in (-pi/2, pi/2] from (..., 3) sums Sxx, Syy, Sxy; in angles a wide interval stays one."""
    xx, yy, xy = sums[..., 0], sums[..., 1], sums[..., 2]
    return np.asarray(0.5 * np.arctan2(2 * xy, xx - yy))


def _binary_js(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    def entropy(x: NDArray[np.float64]) -> NDArray[np.float64]:
        x = np.clip(x, 1e-300, 1.0)
        rest = np.clip(1.0 - x, 1e-300, 1.0)
        return -(x * np.log(x) + rest * np.log(rest))

    return entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
