"""How sure one may be of a success rate.

Left out: pass@k and anything that pairs two evaluations (rlpost/eval/scores.py).
"""

from __future__ import annotations

import math

NORMAL_975 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""


def wilson_interval(successes: int, trials: int, z: float = NORMAL_975) -> tuple[float, float]:
    """Wilson's score interval of a binomial proportion (Wilson 1927); the default ``z`` gives 95 %.

    With p = successes / trials and n = trials::

        (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n)

    Unlike p ± z·s.e. it stays inside [0, 1] and has a width where p is 0 or 1. No trials give (0, 1).

    Raises:
        ValueError: not 0 <= successes <= trials.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials is impossible")
    if trials == 0:
        return 0.0, 1.0
    return wilson_interval_of_share(successes / trials, trials, z)


def wilson_interval_of_share(share: float, trials: float, z: float = NORMAL_975) -> tuple[float, float]:
    """The same for a share of a number of trials, > 0, that need not be whole."""
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    low = 0.0 if share == 0 else (centre - spread) / scale
    high = 1.0 if share == 1 else (centre + spread) / scale
    return low, high
