"""What n samples a question come to: avg@n, pass@k, majority@n, and how sure one may be of each.

A question is the unit of every interval: samples of one question are not independent of each other. Left out: reading
and writing (results.py).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from rlpost.report.statistics import NORMAL_975, wilson_interval_of_share


def pass_at_k(n: int, right: int, k: int) -> float:
    """The unbiased estimate of the chance that at least one of k samples is right, of n drawn with ``right`` right::

        1 - C(n - right, k) / C(n, k)        (Chen et al. 2021, equation 1)

    Raises:
        ValueError: not 1 <= k <= n, or not 0 <= right <= n.
    """
    if not 1 <= k <= n or not 0 <= right <= n:
        raise ValueError(f"pass@{k} of {right} right among {n} cannot be")
    draws = math.comb(n, k)
    return (draws - math.comb(n - right, k)) / draws  # one division: pass@1 is right / n to the bit


def majority(answers: Sequence[str], right: Sequence[bool]) -> float:
    """Whether the answer given most often is right; where several are, the mean over them. Empty answers do not vote;
    without any vote it is 0."""
    votes = Counter(answer for answer in answers if answer)
    if not votes:
        return 0.0
    most = max(votes.values())
    verdicts = dict(zip(reversed(answers), reversed(right), strict=True))  # the first of the same answer speaks for all
    leaders = [verdicts[answer] for answer, count in votes.items() if count == most]
    return sum(leaders) / len(leaders)


def mean_interval(values: Sequence[float], trials_each: int = 1) -> tuple[float, float, float]:
    """Mean of one value in [0, 1] a question, and its 95 % interval.

    Wilson's interval with as many trials as independent ones of the same spread would be, n = p (1 - p) / var(mean):
    with one sample a question it is Wilson's own; with more, the questions' differences count and not the samples'
    number alone. At most ``trials_each`` trials a question, at least one.

    Returns:
        (mean, low, high).
    """
    count = len(values)
    mean = math.fsum(values) / count
    spread = math.fsum((value - mean) ** 2 for value in values) / count
    binomial = mean * (1.0 - mean)
    alike = trials_each if binomial > 0 else 1  # all questions the same: each sample was a trial, unless all agree
    trials = count * min(max(binomial / spread if spread > 0 else alike, 1.0), trials_each)
    return (mean, *wilson_interval_of_share(mean, trials))


def paired_difference(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """Mean of second - first over the same questions, and its 95 % interval: mean ± t s / sqrt(M), with Student's t.

    Raises:
        ValueError: fewer than two questions, or not as many of one as of the other.
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"{len(first)} and {len(second)} questions cannot be paired")
    differences = [b - a for a, b in zip(first, second, strict=True)]
    count = len(differences)
    mean = math.fsum(differences) / count
    variance = math.fsum((value - mean) ** 2 for value in differences) / (count - 1)
    half = student_975(count - 1) * math.sqrt(variance / count)
    return mean, mean - half, mean + half


def student_975(freedom: int) -> float:
    """The 97.5 % quantile of Student's t: exact for 1 and 2 degrees of freedom, else Abramowitz and Stegun 26.7.5,
    within 0.13 % for 3 and within 0.02 % from 5 on."""
    if freedom == 1:
        return math.tan(math.pi * 0.475)
    if freedom == 2:
        return 0.95 / math.sqrt(2 * 0.975 * 0.025)
    z, v = NORMAL_975, float(freedom)
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )
