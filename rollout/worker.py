"""The rollout worker: one engine, many episodes at once. A plain async class; the runtime makes a Ray actor of it.

Left out: Ray, groups and steps (the controller's), sampling (the engine's), one episode's course (episode.py).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from rlpost.envs.registry import ENVIRONMENTS
from rlpost.rollout.chat import ChatFormat, load_format
from rlpost.rollout.digest import Held
from rlpost.rollout.engine import Adoption, Engine, EngineError, ProbeResult, ProbeRows, SampleRequest
from rlpost.rollout.env_session import EnvFactory
from rlpost.rollout.env_threads import EnvThreads
from rlpost.rollout.episode import EpisodeControl, play, record
from rlpost.rollout.gate import OrderedGate
from rlpost.rollout.specs import EpisodeSpec, Setting, Summary, WorkerSetup, WorkerStatus, summarize
from rlpost.rollout.tape import Tape
from rlpost.rollout.trajectory import StopReason, Trajectory
from rlpost.rollout.transport.ends import Rendezvous
from rlpost.rollout.weight_update import WeightUpdate

MAX_ABANDONED_THREADS = 4
"""Environment threads that may hang beyond their deadline before the worker asks to be restarted."""


@runtime_checkable
class LockStepEngine(Protocol):
    """What an engine offers beyond Engine where it can sample deterministically: it waits until every episode still
    playing has asked for its next turn, and admits the requests in order."""

    def expect(self, episodes: int) -> None:
        """So many episodes follow."""
        ...

    def episode_done(self) -> None:
        """One of them has ended and will ask for nothing more."""
        ...


@runtime_checkable
class SleepingEngine(Protocol):
    """An engine that can give its memory back until the next update of its weights."""

    async def sleep(self) -> None:
        """What runs is aborted."""
        ...


@runtime_checkable
class BroadcastEngine(Protocol):
    """An engine that can take weights from a broadcast of the learner's."""

    async def connect(self, where: Rendezvous) -> None:
        """Meet the others: this engine's GPUs are ``where.rank`` and up."""
        ...


@runtime_checkable
class CountingEngine(Protocol):
    """An engine with numbers of its own for the status."""

    def stats(self) -> dict[str, float]:
        """Name to number."""
        ...


@dataclass(frozen=True, slots=True)
class _Place:
    """A setting, ready to play in."""

    setting: Setting
    factory: EnvFactory
    chat: ChatFormat

    @classmethod
    def of(cls, setting: Setting, setup: WorkerSetup) -> _Place:
        config = setting.config
        chat = load_format(
            setup.model_folder, config.chat, config.observation_tokens, config.separator, setup.trust_remote_code
        )
        return cls(setting, EnvFactory(ENVIRONMENTS.load(setting.env), setting.env_options), chat)


class RolloutWorker:
    """Plays episodes against its own engine.

    Make an actor of it with ``ray.remote(RolloutWorker).options(max_concurrency=...)``: each episode waits in a call
    of its own, so ``max_concurrency`` must exceed the episodes sent at once, with a few to spare for the other calls.

    Raises:
        ChatError, PluginError, EngineError: the tokenizer, the user's code or the engine cannot be set up.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        config = setup.config
        self._setup = setup
        own = Setting(setup.env, config, setup.env_options)
        self._places = {name: _Place.of(setting, setup) for name, setting in {"": own, **setup.settings}.items()}
        self._threads = EnvThreads()
        # Lock-step sampling waits for all episodes of the step, so none of them may wait for a place.
        self._gate = OrderedGate(sys.maxsize if setup.deterministic else config.max_concurrent)
        self._controls: list[EpisodeControl] = []
        self._played = 0
        stops = sorted({token for place in self._places.values() for token in place.chat.stop_token_ids})
        options = {"stop_token_ids": stops, **setup.engine_options}
        self._engine: Engine = setup.engine.load()(**options)

    async def run(self, spec: EpisodeSpec) -> tuple[Summary, Trajectory]:
        """Play one episode. Call with ``num_returns=2``: the trajectory then stays in the object store.

        Never raises for what happens in the episode; see ``stop`` and ``error`` of the summary.
        """
        control = EpisodeControl(spec)
        self._controls.append(control)
        try:
            trajectory = await self._play(control)
        finally:
            self._controls.remove(control)
            self._played += 1
            if self._setup.deterministic and isinstance(self._engine, LockStepEngine):
                self._engine.episode_done()
        abandoned = self._threads.abandoned
        worn_out = abandoned > MAX_ABANDONED_THREADS
        return summarize(trajectory, self._setup.worker, abandoned, worn_out), trajectory

    async def _play(self, control: EpisodeControl) -> Trajectory:
        if not await self._gate.enter(control.spec.order, control.cut):
            return record(control.spec, Tape(), StopReason.CANCELLED)
        try:
            place = self._places[control.spec.setting]
            setting = place.setting
            return await play(
                place.factory,
                self._engine,
                place.chat,
                setting.config,
                control.spec,
                self._threads,
                control,
                setting.stop,
                setting.logprobs,
            )
        finally:
            self._gate.leave()

    @property
    def engine_lost(self) -> bool:
        """Whether the engine's own process ended unasked, where it has one."""
        return bool(getattr(self._engine, "lost", False))

    async def begin(self, count: int) -> None:
        """Deterministic mode: ``count`` episodes of a step follow. Nothing to do for an engine without lock-step."""
        if self._setup.deterministic and isinstance(self._engine, LockStepEngine):
            self._engine.expect(count)

    async def connect(self, where: Rendezvous, gpus: int) -> None:
        """Join the broadcast of weights, where the learner comes first and then each worker's engine over ``gpus``."""
        if not isinstance(self._engine, BroadcastEngine):
            raise EngineError(f"{type(self._engine).__name__} takes no weights by broadcast")
        await self._engine.connect(replace(where, rank=1 + gpus * self._setup.worker))

    async def update(self, *parts: WeightUpdate) -> list[Held]:
        """Switch the engine to new weights, which may come in parts; what it then holds of them.

        Raises:
            EngineError: the engine refused them or died.
        """
        return await self._engine.update_weights(WeightUpdate.join(parts))

    async def adopt(self, rows: ProbeRows, temperature: float, seed: int, *parts: WeightUpdate) -> Adoption:
        """Switch to new weights and score the probe with them, before anything else is sampled."""
        held = await self.update(*parts)
        probe = await self.probe(rows.token_ids, temperature, seed)
        if not rows.far:
            return Adoption(held, probe)
        request = SampleRequest("far", rows.far, rows.tokens, 1.0, seed, urgent=True)
        return Adoption(held, probe, await self._engine.generate(request))

    async def sleep(self) -> None:
        """Free the engine's memory until the next ``update``, where the engine can."""
        if isinstance(self._engine, SleepingEngine):
            await self._engine.sleep()

    async def probe(self, token_ids: list[list[int]], temperature: float, seed: int) -> ProbeResult:
        """The engine's log-probabilities of a fixed probe at its current version; see Engine.probe."""
        return await self._engine.probe(token_ids, temperature, seed)

    async def cancel(self, episodes: Sequence[tuple[int, int]]) -> int:
        """End these (group_id, index) episodes early, playing or waiting; their ``run`` soon returns with stop
        CANCELLED. How many of them were found."""
        named = set(episodes)
        found = [control for control in self._controls if (control.spec.group_id, control.spec.index) in named]
        for control in found:
            control.cancel()
        return len(found)

    async def status(self) -> WorkerStatus:
        """What runs here, on what task, and for how long; in the order the episodes were sent."""
        return WorkerStatus(
            worker=self._setup.worker,
            version=self._engine.version,
            waiting=self._gate.waiting,
            running=[control.status() for control in self._controls],
            played=self._played,
            abandoned_threads=self._threads.abandoned,
            engine=self._engine.stats() if isinstance(self._engine, CountingEngine) else {},
        )

    async def close(self) -> None:
        """Cancel what runs, and stop the engine."""
        for control in self._controls:
            control.cancel()
        self._threads.close()
        await self._engine.close()
