"""Whether engines sample from the weights that the learner trains: two checks of every publication.

What arrived is what was sent: a digest of every tensor, read back from each engine, bit for bit. What it computes: the
engine's log-probabilities of probe rows against the learner's at the same version, their level, and the slope of their
changes since an earlier version (agreement.py). The rows are random ones, the beginnings of recent rollouts, and, each
time the earlier version is moved up, tokens sampled at the end of one row of full length. Left out: sending weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from rlpost.agreement import Level, Rows, Slope, slope
from rlpost.faults import RunError
from rlpost.learner.group import LearnerGroup
from rlpost.rollout.digest import Held, Sent, mismatches
from rlpost.rollout.engine import Adoption, ProbeResult, ProbeRows

RANDOM_ROWS, RANDOM_TOKENS = 4, 16
RECENT_ROWS, RECENT_TOKENS = 4, 64
LAST_TOKENS = 8
"""Tokens sampled at the end of a row of full length."""
_LONGER = 4
"""The earlier version stays until this many times as many versions have passed as before it."""


@dataclass(frozen=True, slots=True)
class Gap:
    """How far an engine's log-probabilities are from the learner's at one version.

    Attributes:
        level: of the differences, over all rows, in nats.
        kl: mean (engine - learner) at tokens drawn by the engine, an estimate of KL(engine || learner).
        slope: the engine's change against the learner's since an earlier version; None while it cannot be told.
        far: mean |learner - engine| of tokens sampled at the end of a row of full length; None where none was.
    """

    level: Level
    kl: float
    slope: Slope | None = None
    far: float | None = None

    @property
    def logprob_abs(self) -> float:
        """Mean |learner - engine|, in nats."""
        return self.level.logprob_abs

    def metrics(self) -> dict[str, float | None]:
        """For metrics.jsonl."""
        found: dict[str, float | None] = {f"gap/{name}": value for name, value in asdict(self.level).items()}
        found |= {"gap/kl": self.kl}
        if self.slope is not None:
            found |= {"gap/slope": self.slope.value, "gap/slope_low": self.slope.low, "gap/slope_high": self.slope.high}
        return found if self.far is None else found | {"gap/far": self.far}


@dataclass(slots=True)
class _Earlier:
    """A version that changes are counted from: the same rows, scored then."""

    version: int
    learner: Rows = field(default_factory=list)
    engines: list[Rows] = field(default_factory=list)


class Verifier:
    """Checks every publication to a fixed number of workers.

    Args:
        learner: the single copy.
        temperature: of the recipe; drawn tokens are compared at it, the rows' own at 1.
        bound: largest tolerated mean |learner - engine|.
        seed: of the random rows.
        max_context: length of the row of full length, in tokens.
        history: earlier versions and recent rollouts are part of it. Without, what is checked is a function of the
            version alone, so that a run that was resumed logs what an uninterrupted one does.
    """

    def __init__(
        self,
        learner: LearnerGroup,
        temperature: float,
        bound: float,
        seed: int,
        max_context: int,
        history: bool = True,
    ) -> None:
        self._history = history
        self._learner, self._temperature, self._bound = learner, temperature, bound
        draw = np.random.default_rng([seed, 0x9E37])
        self._random = draw.integers(0, learner.vocabulary, (RANDOM_ROWS, RANDOM_TOKENS)).tolist()
        room = max_context - LAST_TOKENS
        self._far = draw.integers(0, learner.vocabulary, room).tolist() if room > RANDOM_TOKENS else []
        self._recent: list[list[int]] = []
        self._fresh: list[list[int]] = []
        self._earlier: _Earlier | None = None
        self._moving = True
        self._stays = 1
        self._known: set[str] = set()

    def remember(self, token_ids: Sequence[NDArray[np.int32]]) -> None:
        """Recent rollouts, (T,) each; a few of them are rows of the probe from the next earlier version on."""
        if self._history:
            self._fresh = [ids[:RECENT_TOKENS].tolist() for ids in token_ids[:RECENT_ROWS] if len(ids) > 1]

    def rows(self, version: int) -> ProbeRows:
        """What engines are to score at ``version``, with the row of full length where the earlier version moves up."""
        self._moving = self._moves_up(version)
        if self._moving:
            self._recent = self._fresh
        return ProbeRows([*self._random, *self._recent], self._far if self._moving else [], LAST_TOKENS)

    def _moves_up(self, version: int) -> bool:
        earlier = self._earlier
        return not self._history or earlier is None or version - earlier.version >= self._stays

    def arrived(self, version: int, sent: Mapping[str, Sent], worker: int, held: Sequence[Held]) -> None:
        """The first check, of one worker.

        Raises:
            RunError: the engine holds something else than what was sent; the message names the tensors.
        """
        names = {name for process in held for name in process}
        wrong = mismatches(sent, held)
        wrong += [f"'{name}': the engine took it, and the learner has no such tensor" for name in names - sent.keys()]
        wrong += [f"'{name}': the engine took nothing of it" for name in (self._known & sent.keys()) - names]
        self._known |= names
        if not sent or not names:
            wrong.append(f"the learner sent {len(sent)} tensors and the engine took {len(names)}")
        if wrong:
            raise RunError(
                f"policy version {version}: rollout worker {worker} does not hold the weights that the learner sent, "
                f"so no further rollout was used. {len(wrong)} of {len(sent)} tensors are wrong: {'; '.join(wrong[:5])}"
            )

    def computes(self, version: int, rows: ProbeRows, adoptions: Sequence[Adoption]) -> Gap:
        """The second check, of all workers; the worst one's gap. The learner must not have learned since.

        Raises:
            RunError: a worker's log-probabilities are not those of the learner's weights.
        """
        for worker, adoption in enumerate(adoptions):
            if adoption.probe.version != version:
                raise RunError(
                    f"rollout worker {worker} says it has policy version {adoption.probe.version} right after version "
                    f"{version} was published to it"
                )
        learner, warm = self._score(rows.token_ids, [adoption.probe for adoption in adoptions])
        engines: list[Rows] = [_double(adoption.probe.fixed_logprobs) for adoption in adoptions]
        earlier = self._earlier
        gaps = []
        for worker, adoption in enumerate(adoptions):
            drawn = np.array(adoption.probe.sampled_logprobs, np.float64)
            level = Level.of([*learner[worker], warm[worker]], [*engines[worker], drawn])
            change = None
            if earlier is not None and not self._moving:
                change = slope(earlier.learner, learner[worker], earlier.engines[worker], engines[worker])
            gap = Gap(level, float((drawn - warm[worker]).mean()), change, self._far_gap(rows, adoption))
            self._judge(version, worker, gap)
            gaps.append(gap)
        if self._moving:
            self._stays = _LONGER * max(1, version - earlier.version) if earlier else 1
            self._earlier = _Earlier(version, learner[0], engines)
        return max(gaps, key=lambda gap: gap.logprob_abs)

    def _score(
        self, fixed: list[list[int]], probes: Sequence[ProbeResult]
    ) -> tuple[list[Rows], list[NDArray[np.float64]]]:
        """For each worker, the learner's log-probs of the rows at T = 1, and of the drawn tokens at the recipe's T."""
        extended = [[*ids, drawn] for probe in probes for ids, drawn in zip(fixed, probe.sampled_ids, strict=True)]
        plain = self._learner.score(extended, 1.0)
        warm = plain if self._temperature == 1.0 else self._learner.score(extended, self._temperature)
        starts = range(0, len(extended), len(fixed))
        rows: list[Rows] = [_double([ids[:-1] for ids in plain[at : at + len(fixed)]]) for at in starts]
        return rows, [np.array([ids[-1] for ids in warm[at : at + len(fixed)]], np.float64) for at in starts]

    def _far_gap(self, rows: ProbeRows, adoption: Adoption) -> float | None:
        if adoption.far is None:
            return None
        sampled = adoption.far.token_ids
        [own] = self._learner.score([[*rows.far, *sampled.tolist()]], 1.0)
        return float(np.abs(own[-len(sampled) :] - adoption.far.logprobs).mean())

    def _judge(self, version: int, worker: int, gap: Gap) -> None:
        told = f"policy version {version}: the log-probabilities of rollout worker {worker}"
        if not gap.logprob_abs <= self._bound:
            raise RunError(
                f"{told} differ from the learner's by {gap.logprob_abs:.3g} nats on average, more than sync.gap_bound "
                f"= {self._bound:g}. The worker does not sample from the weights being trained, so no further rollout "
                "was used. Causes seen: a model whose engine and training code disagree, or a bound too tight for the "
                "engine's dtype"
            )
        if gap.far is not None and not gap.far <= self._bound:
            raise RunError(
                f"{told} differ from the learner's by {gap.far:.3g} nats on average at the end of a row of "
                f"rollout.max_context tokens, more than sync.gap_bound = {self._bound:g}, and not in short rows: the "
                "model's positions (rotary scaling, sliding windows) are read differently by engine and learner. Lower "
                "rollout.max_context to the length that the model was trained for, or report the model"
            )
        if gap.slope is not None and gap.slope.wrong:
            raise RunError(
                f"{told} do not follow the learner's: since version {self._earlier.version if self._earlier else 0} "
                f"they changed {gap.slope.value:.2f} times as much (95 % interval {gap.slope.low:.2f} to "
                f"{gap.slope.high:.2f}, and it must not lie outside 0.8 to 1.25). The worker does not sample from the "
                "weights being trained, so no further rollout was used"
            )


def _double(rows: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float64]]:
    return [row.astype(np.float64) for row in rows]
