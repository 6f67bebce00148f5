"""One episode's environment, called under deadlines.

Methods may be ``def`` (run on a thread, or straight away where the class says that it never blocks) or ``async def``
(run on the event loop, which they must not block). A call that raises, overruns, or returns something else than its
contract says becomes an EpisodeFault whose message names the environment, the call and the task. Left out: tokens and
turns (episode.py).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from rlpost.envs.base import Env, Message, Observation, Task
from rlpost.reward.clock import Clock
from rlpost.reward.score import RewardError, Score
from rlpost.rollout.env_threads import EnvThread, EnvThreads, Outcome, outcome_of
from rlpost.rollout.faults import EpisodeFault
from rlpost.rollout.specs import REWARD_ERROR
from rlpost.rollout.trajectory import StopReason

logger = logging.getLogger(__name__)
_LOOK_S = 0.02  # at least, between two looks at a clock that stands still


@dataclass(frozen=True, slots=True)
class EnvFactory:
    """What builds the environments of a run: the class and the recipe's ``env.options``."""

    env_class: type[Env]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The class's name, for messages."""
        return self.env_class.__name__

    def build(self, task: Task, seed: int) -> Env:
        """A new environment: one episode."""
        return self.env_class(task, seed, **self.options)


Way = Literal["inline", "loop", "thread"]


def _way(env_class: type[Env], method: str) -> Way:
    """How a method is called: straight away, as a coroutine under a deadline, or on a thread under a deadline."""
    function = getattr(env_class, method, None)
    if inspect.iscoroutinefunction(function):
        return "loop"
    trivial = method in ("close", "metrics") and function is getattr(Env, method)
    blocking = env_class.blocking
    blocks = blocking if isinstance(blocking, bool) else method in blocking
    return "thread" if blocks and not trivial else "inline"


def _way_to_build(env_class: type[Env]) -> Way:
    """A constructor is called on the environment's thread where it has one."""
    if not isinstance(env_class.blocking, bool):
        return _way(env_class, "start")
    ways = {_way(env_class, method) for method in ("start", "step", "score", "metrics", "close")}
    return "thread" if "thread" in ways else "inline"


class EnvSession:
    """The environment of one episode.

    Args:
        factory: what builds it.
        task, seed: of this episode.
        deadline_s: seconds each call may take; the time that judges take (``rlpost.reward.clock``) does not count.
        threads: the worker's threads.
        cut: done once the episode is called off; calls in flight are then given up.

    Raises (all methods but ``close``):
        EpisodeFault: ENV_FAILED, ENV_TIMEOUT or CANCELLED. The message starts with REWARD_ERROR where the
            reward function is at fault.
    """

    def __init__(
        self,
        factory: EnvFactory,
        task: Task,
        seed: int,
        deadline_s: float,
        threads: EnvThreads,
        cut: asyncio.Future[None],
    ) -> None:
        self._factory = factory
        self._task = task
        self._seed = seed
        self._deadline_s = deadline_s
        self._threads = threads
        self._cut = cut
        self._thread: EnvThread | None = None
        self._env: Env | None = None

    async def start(self) -> list[Message]:
        """Build the environment and get its opening messages."""
        build = partial(self._factory.build, self._task, self._seed)
        way = _way_to_build(self._factory.env_class)
        self._env = await self._carry_out(way, "__init__", build, self._close_late)
        messages = await self._call("start")
        self._check(_are_messages(messages), "start", "a non-empty list of {'role': str, 'content': str}", messages)
        return [Message(role=message["role"], content=message["content"]) for message in messages]

    async def step(self, text: str) -> Observation:
        """Hand over what the model wrote."""
        observation = await self._call("step", text)
        fits = isinstance(observation, Observation) and isinstance(observation.text, str)
        self._check(fits, "step", "an rlpost.envs.base.Observation with a text", observation)
        assert isinstance(observation, Observation)
        return observation

    async def score(self) -> Score:
        """Judge the episode. All numbers of the returned score are Python floats."""
        score = await self._call("score")
        if not isinstance(score, Score):
            raise self._reward_fault("score", f"returned {_show(score)} instead of a reward.Score")
        try:
            parts = {str(name): float(value) for name, value in score.parts.items()}
            return Score(float(score.reward), parts, bool(score.solved), str(score.answer))
        except (TypeError, ValueError, AttributeError) as error:
            raise self._reward_fault("score", f"returned {_show(score)}: {error}") from None

    async def metrics(self) -> dict[str, float]:
        """The environment's own numbers."""
        values = await self._call("metrics")
        try:
            return {str(name): float(value) for name, value in dict(values).items()}
        except (TypeError, ValueError):
            self._check(False, "metrics", "a dict of numbers", values)
            raise

    async def close(self) -> None:
        """Release the environment, whatever happened before. Never raises for the environment's faults: the episode
        has its score by now, so they are only logged. Where an earlier call was given up and still runs, ``close`` is
        called from another thread, and so can end what that call hangs on."""
        if self._env is not None:
            self._cut = asyncio.get_running_loop().create_future()  # called off or not, it must be closed
            try:
                await self._call("close")
            except EpisodeFault as fault:
                logger.warning("%s", fault)
        if self._thread is not None:
            self._threads.give_back(self._thread)
            self._thread = None

    async def _call(self, method: str, *args: Any) -> Any:
        function = partial(getattr(self._env, method), *args)
        return await self._carry_out(_way(self._factory.env_class, method), method, function)

    async def _carry_out(
        self,
        way: Way,
        method: str,
        call: Callable[[], Any],
        late: Callable[[Any], None] | None = None,
    ) -> Any:
        if way == "inline":
            outcome = outcome_of(call)
        elif way == "loop":
            clock = Clock()
            outcome = await self._guard(method, clock.run(lambda: asyncio.ensure_future(_awaited(call))), clock)
        else:
            self._thread = self._thread or self._threads.take()
            clock = Clock()
            outcome = await self._guard(method, self._thread.submit(partial(clock.run, call), late), clock)
        if outcome.error is not None:
            raise self._fault_of(method, outcome.error) from outcome.error
        return outcome.value

    async def _guard(self, method: str, call: asyncio.Future[Outcome], clock: Clock) -> Outcome:
        """Wait for a call until it ends, its deadline passes, or the episode is called off."""
        either: set[asyncio.Future[Any]] = {call, self._cut}
        try:
            while not (call.done() or self._cut.done()):
                left = self._deadline_s - clock.counted_s
                if left <= 0 and not clock.stopped:
                    break
                await asyncio.wait(either, timeout=max(left, _LOOK_S), return_when=asyncio.FIRST_COMPLETED)
            if call.done():
                return call.result()
        finally:
            if not call.done():
                self._give_up(call, time.monotonic() + max(0.0, self._deadline_s - clock.counted_s))
        if self._cut.done():
            raise EpisodeFault(StopReason.CANCELLED, "")
        raise EpisodeFault(
            StopReason.ENV_TIMEOUT,
            f"{self._where(method)} took longer than {self._deadline_s:g} s (rollout.deadline_s)",
        )

    def _give_up(self, call: asyncio.Future[Outcome], until: float) -> None:
        call.cancel()
        if self._thread is not None and not isinstance(call, asyncio.Task):
            self._threads.lose(self._thread, until)
            self._thread = None

    def _close_late(self, env: Env) -> None:
        """A constructor that overran did return in the end: nobody will use the environment, so close it."""
        thread = self._threads.take()
        done = thread.submit(
            lambda: asyncio.run(env.close()) if inspect.iscoroutinefunction(env.close) else env.close()
        )
        done.add_done_callback(lambda _: self._threads.give_back(thread))

    def _fault_of(self, method: str, error: BaseException) -> EpisodeFault:
        if isinstance(error, RewardError):
            return self._reward_fault(method, str(error))
        frames = traceback.extract_tb(error.__traceback__)
        place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
        message = f"{self._where(method)} raised {type(error).__name__}: {error}{place}"
        return EpisodeFault(StopReason.ENV_FAILED, message)

    def _reward_fault(self, method: str, message: str) -> EpisodeFault:
        return EpisodeFault(StopReason.ENV_FAILED, f"{REWARD_ERROR}{self._where(method)}: {message}")

    def _check(self, fits: bool, method: str, wanted: str, got: object) -> None:
        if not fits:
            raise EpisodeFault(
                StopReason.ENV_FAILED, f"{self._where(method)} returned {_show(got)} instead of {wanted}"
            )

    def _where(self, method: str) -> str:
        return f"{self._factory.name}.{method} of task '{self._task.id}'"


async def _awaited(call: Callable[[], Awaitable[Any]]) -> Outcome:
    """Every exception is caught: ``sys.exit`` in a world must not end the worker."""
    try:
        return Outcome(await call())
    except BaseException as error:
        return Outcome(error=error)


def _are_messages(messages: object) -> bool:
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        return False
    return all(
        isinstance(m, Mapping) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
        for m in messages
    )


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
