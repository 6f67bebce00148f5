"""One episode's environment, called under deadlines.

Methods may be ``def`` (run on a thread) or ``async def`` (run on the event loop, which they must not block). A call
that raises, overruns, or returns something else than its contract says becomes an EpisodeFault whose message names
the environment, the call and the task. Left out: tokens and turns (episode.py).
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
from typing import Any

from envs.base import Env, Message, Observation, Task
from reward.score import RewardError, Score
from rollout.config import EnvDeadlines
from rollout.env_threads import EnvThread, EnvThreads, Outcome
from rollout.faults import EpisodeFault
from rollout.specs import REWARD_ERROR
from rollout.trajectory import StopReason

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EnvFactory:
    """What builds the environments of a run: the class and the recipe's ``env.options``."""

    env_class: type[Env]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The class's name, for messages."""
        return self.env_class.__name__

    @property
    def needs_thread(self) -> bool:
        """Whether it must be built on a thread: some method of it is ``def``. One that is ``async def`` throughout is
        built on the event loop, which saves quick worlds the hops between threads."""
        return not all(_runs_on_loop(self.env_class, name) for name in ("start", "step", "score", "metrics", "close"))

    def build(self, task: Task, seed: int) -> Env:
        """A new environment: one episode."""
        return self.env_class(task, seed, **self.options)


def _runs_on_loop(env_class: type[Env], method: str) -> bool:
    """Whether calling it can neither block nor needs a thread: ``async def``, or the base class's trivial default."""
    function = getattr(env_class, method, None)
    trivial = method in ("close", "metrics") and function is getattr(Env, method)
    return trivial or inspect.iscoroutinefunction(function)


class EnvSession:
    """The environment of one episode.

    Args:
        factory: what builds it.
        task, seed: of this episode.
        deadlines: seconds each call may take.
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
        deadlines: EnvDeadlines,
        threads: EnvThreads,
        cut: asyncio.Future[None],
    ) -> None:
        self._factory = factory
        self._task = task
        self._seed = seed
        self._deadlines = deadlines
        self._threads = threads
        self._cut = cut
        self._thread: EnvThread | None = None
        self._env: Env | None = None

    async def start(self) -> list[Message]:
        """Build the environment and get its opening messages."""
        build = partial(self._factory.build, self._task, self._seed)
        if self._factory.needs_thread:
            self._env = await self._guard("__init__", "start", lambda: self._on_thread(build, late=self._close_late))
        else:
            self._env = await self._guard("__init__", "start", lambda: _outcome(build))
        messages = await self._call("start", "start")
        self._check(_are_messages(messages), "start", "a non-empty list of {'role': str, 'content': str}", messages)
        return [Message(role=message["role"], content=message["content"]) for message in messages]

    async def step(self, text: str) -> Observation:
        """Hand over what the model wrote."""
        observation = await self._call("step", "step", text)
        fits = isinstance(observation, Observation) and isinstance(observation.text, str)
        self._check(fits, "step", "an envs.base.Observation with a text", observation)
        assert isinstance(observation, Observation)
        return observation

    async def score(self) -> Score:
        """Judge the episode. All numbers of the returned score are Python floats."""
        score = await self._call("score", "score")
        if not isinstance(score, Score):
            raise self._reward_fault("score", f"returned {_show(score)} instead of a reward.Score")
        try:
            parts = {str(name): float(value) for name, value in score.parts.items()}
            return Score(float(score.reward), parts, bool(score.solved))
        except (TypeError, ValueError, AttributeError) as error:
            raise self._reward_fault("score", f"returned {_show(score)}: {error}") from None

    async def metrics(self) -> dict[str, float]:
        """The environment's own numbers."""
        values = await self._call("metrics", "score")
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
                await self._call("close", "close")
            except EpisodeFault as fault:
                logger.warning("%s", fault)
        if self._thread is not None:
            self._threads.give_back(self._thread)
            self._thread = None

    async def _call(self, method: str, deadline: str, *args: Any) -> Any:
        function = partial(getattr(self._env, method), *args)
        if not _runs_on_loop(self._factory.env_class, method):
            return await self._guard(method, deadline, lambda: self._on_thread(function))
        return await self._guard(method, deadline, lambda: _outcome(function))

    def _on_thread(self, call: Callable[[], Any], late: Callable[[Any], None] | None = None) -> asyncio.Future[Outcome]:
        if self._thread is None:
            self._thread = self._threads.take()
        return self._thread.submit(call, late)

    async def _guard(self, method: str, deadline: str, launch: Callable[[], Awaitable[Outcome]]) -> Any:
        """Wait for a call until it ends, its deadline passes, or the episode is called off."""
        seconds: float = getattr(self._deadlines, deadline)
        until = time.monotonic() + seconds
        call = asyncio.ensure_future(launch())
        try:
            either: set[asyncio.Future[Any]] = {call, self._cut}
            await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not call.done():
                self._give_up(call, until)
        if not call.cancelled() and call.done():
            outcome = call.result()
            if outcome.error is None:
                return outcome.value
            raise self._fault_of(method, outcome.error) from outcome.error
        if self._cut.done():
            raise EpisodeFault(StopReason.CANCELLED, "")
        raise EpisodeFault(
            StopReason.ENV_TIMEOUT,
            f"{self._where(method)} took longer than {seconds:g} s (rollout.deadlines.{deadline})",
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


async def _outcome(call: Callable[[], Any]) -> Outcome:
    """Call on the event loop. Every exception is caught: ``sys.exit`` in a world must not end the worker."""
    try:
        value = call()
        return Outcome(await value if inspect.isawaitable(value) else value)
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
