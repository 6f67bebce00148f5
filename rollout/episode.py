"""One episode, from its opening messages to its score: the engine and the environment take turns.

Nothing an environment or an engine does to one episode reaches another: it ends with a stop reason and a message of
its own. Left out: who plays how many episodes where (worker.py, the controller), and how environments are called
under deadlines (env_session.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlpost.reward.score import Score
from rlpost.rollout.chat import ChatError, ChatFormat, cut
from rlpost.rollout.config import RolloutConfig
from rlpost.rollout.engine import Engine, EngineError, Sample, SampleRequest
from rlpost.rollout.env_session import EnvFactory, EnvSession
from rlpost.rollout.env_threads import EnvThreads
from rlpost.rollout.faults import EpisodeFault
from rlpost.rollout.specs import EpisodeSpec, RunningEpisode
from rlpost.rollout.tape import Tape
from rlpost.rollout.trajectory import StopReason, Trajectory

_request_numbers = itertools.count()


class EpisodeControl:
    """What others may see of an episode in flight, and how they call it off. Made on the event loop.

    Attributes:
        cut: done once the episode is called off.
    """

    def __init__(self, spec: EpisodeSpec) -> None:
        self.spec = spec
        self.cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._phase = "waiting"
        self._began = self._phase_began = time.monotonic()
        self._request: tuple[Engine, str] | None = None

    def enter(self, phase: str, request: tuple[Engine, str] | None = None) -> None:
        """Note what the episode waits for from now on, and the engine's request where it is one."""
        self._phase, self._phase_began, self._request = phase, time.monotonic(), request

    def cancel(self) -> None:
        """Call the episode off: it ends soon with CANCELLED, whatever it waits for."""
        if not self.cut.done():
            self.cut.set_result(None)
        if self._request is not None:
            engine, request_id = self._request
            engine.abort(request_id)

    def status(self) -> RunningEpisode:
        """For fault messages."""
        now = time.monotonic()
        spec = self.spec
        return RunningEpisode(
            spec.group_id, spec.index, spec.task.id, self._phase, now - self._phase_began, now - self._began
        )


async def play(
    factory: EnvFactory,
    engine: Engine,
    chat: ChatFormat,
    config: RolloutConfig,
    spec: EpisodeSpec,
    threads: EnvThreads,
    control: EpisodeControl | None = None,
    stop: Sequence[str] = (),
    logprobs: bool = True,
) -> Trajectory:
    """Play one episode to its end.

    The environment's ``score`` is also asked for when a limit cut the episode off; ``close`` is called in every case.
    Where the last turn ran into its token budget the stop reason is TOKEN_LIMIT, whatever else ended the episode.

    Args:
        stop: texts that end a turn; what was sampled from the first of them on does not reach the environment.
        logprobs: whether sampled tokens must come with their log-probabilities.

    Returns:
        The trajectory. Of an episode that failed or was called off, ``reward`` is NaN and ``error`` says why; the
        tokens are those it had by then.
    """
    control = control or EpisodeControl(spec)
    began = time.monotonic()
    tape = Tape(scored=logprobs)
    turns = _Turns(engine, chat, control, tape, tuple(stop), logprobs)
    score: Score | None = None
    metrics: dict[str, float] = {}
    error = ""
    env = EnvSession(factory, spec.task, spec.seed, config.deadline_s, threads, control.cut)
    try:
        ended = await _converse(env, turns, config)
        control.enter("env.score")
        score, metrics = await env.score(), await env.metrics()
    except EpisodeFault as fault:
        ended, error, score = fault.stop, str(fault), None
    except ChatError as fault:
        ended, error = StopReason.ENV_FAILED, f"messages of {factory.name}, task '{spec.task.id}': {fault}"
    finally:
        wall_s = time.monotonic() - began
        control.enter("env.close")
        await env.close()
    return record(spec, tape, ended, score, metrics, error, wall_s)


def record(
    spec: EpisodeSpec,
    tape: Tape,
    stop: StopReason,
    score: Score | None = None,
    metrics: dict[str, float] | None = None,
    error: str = "",
    wall_s: float = 0.0,
) -> Trajectory:
    """The trajectory of an episode that has ended; without a score its reward is NaN."""
    token_ids, policy_mask, logprobs, versions = tape.arrays()
    return Trajectory(
        token_ids=token_ids,
        policy_mask=policy_mask,
        rollout_logprobs=logprobs,
        versions=versions,
        turns=tape.turns,
        reward=score.reward if score else float("nan"),
        reward_parts=score.parts if score else {},
        success=score.solved if score else False,
        stop=stop,
        task_id=spec.task.id,
        group_id=spec.group_id,
        index=spec.index,
        seed=spec.seed,
        source=spec.task.source,
        scenario=spec.task.scenario,
        difficulty=spec.task.difficulty,
        metrics=metrics or {},
        error=error,
        wall_s=wall_s,
        answer=score.answer if score else "",
    )


@dataclass(frozen=True, slots=True)
class _Turns:
    """What sampling a turn of one episode takes."""

    engine: Engine
    chat: ChatFormat
    control: EpisodeControl
    tape: Tape
    stop: tuple[str, ...]
    logprobs: bool

    async def sample(self, turn: int, budget: int) -> tuple[str, bool]:
        """One turn, put on the tape; its text for the environment, and whether it came to an end within the budget."""
        request = self._request(turn, budget)
        if self.control.cut.done():
            raise EpisodeFault(StopReason.CANCELLED, "")
        self.control.enter(f"engine, turn {turn + 1}", (self.engine, request.id))
        try:
            sample = await self.engine.generate(request)
            text, sample = self._cut(sample)
            self.tape.add_sample(sample)
        except EngineError as error:
            raise EpisodeFault(StopReason.ENGINE_FAILED, str(error)) from error
        except Exception as error:
            raise EpisodeFault(StopReason.ENGINE_FAILED, f"{type(error).__name__}: {error}") from error
        if sample.aborted or self.control.cut.done():
            raise EpisodeFault(StopReason.CANCELLED, "")
        return text, sample.stopped

    def _request(self, turn: int, budget: int) -> SampleRequest:
        spec = self.control.spec
        return SampleRequest(
            id=f"{next(_request_numbers)}:group {spec.group_id}, episode {spec.index}, turn {turn + 1}",
            token_ids=list(self.tape.token_ids),
            max_tokens=budget,
            temperature=0.0 if spec.greedy else spec.temperature,
            seed=turn_seed(spec.seed, turn),
            order=spec.order,
            logprobs=self.logprobs,
            ends=self.chat.stop_check(self.stop),
        )

    def _cut(self, sample: Sample) -> tuple[str, Sample]:
        whole = self.chat.decode(sample.token_ids.tolist())
        text = cut(whole, self.stop)
        return text, sample if len(text) == len(whole) else replace(sample, stopped=True)


async def _converse(env: EnvSession, turns: _Turns, config: RolloutConfig) -> StopReason:
    """Take turns until something ends the episode; the tape then ends with the policy's last token."""
    tape, chat, control = turns.tape, turns.chat, turns.control
    control.enter("env.start")
    tape.add_context(chat.opening(await env.start()))
    if len(tape) >= config.max_context:
        raise EpisodeFault(
            StopReason.ENV_FAILED,
            f"the opening messages of task '{control.spec.task.id}' take {len(tape)} tokens and rollout.max_context is "
            f"{config.max_context}, which leaves nothing to sample",
        )
    for turn in range(config.max_turns):
        text, stopped = await turns.sample(turn, min(config.max_new_tokens, config.max_context - len(tape)))
        control.enter(f"env.step, turn {turn + 1}")
        observation = await env.step(text)
        if observation.done or turn + 1 == config.max_turns:
            ended = StopReason.DONE if observation.done else StopReason.TURN_LIMIT
            return ended if stopped else StopReason.TOKEN_LIMIT
        following = chat.continuation(observation.text, tape.token_ids[-1], reminder=observation.reminder)
        if len(tape) + len(following) >= config.max_context:
            break
        tape.add_context(following)
    return StopReason.TOKEN_LIMIT


def turn_seed(episode_seed: int, turn: int) -> int:
    """Seed of one turn's random draws: 63 bits of a hash, so that no two turns of a run share a stream."""
    digest = hashlib.blake2b(f"{episode_seed}/{turn}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
