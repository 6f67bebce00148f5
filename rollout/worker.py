"""The rollout worker: one engine, many episodes at once. A plain async class; the roof makes a Ray actor of it.

Left out: Ray, groups and steps (the controller's), sampling (the engine's), one episode's course (episode.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from rollout.engine import ProbeResult
from rollout.specs import EpisodeSpec, Summary, WorkerSetup, WorkerStatus
from rollout.trajectory import Trajectory
from rollout.weight_update import WeightUpdate


class RolloutWorker:
    """Plays episodes against its own engine.

    Make an actor of it with ``ray.remote(RolloutWorker).options(max_concurrency=...)``; its ``max_concurrency`` must
    exceed the number of episodes sent at once plus a few, because each waits in its own call.

    Raises:
        ChatError, PluginError, EngineError: the tokenizer, the user's code or the engine cannot be set up.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        raise NotImplementedError

    async def run(self, spec: EpisodeSpec) -> tuple[Summary, Trajectory]:
        """Play one episode. Call with ``num_returns=2``: the trajectory then stays in the object store."""
        raise NotImplementedError

    async def begin(self, count: int) -> None:
        """Deterministic mode: ``count`` episodes of a step follow."""
        raise NotImplementedError

    async def update(self, update: WeightUpdate) -> int:
        """Switch the engine to new weights; the version now in use."""
        raise NotImplementedError

    async def probe(self, token_ids: list[list[int]], temperature: float, seed: int) -> ProbeResult:
        """The engine's log-probabilities of a fixed probe."""
        raise NotImplementedError

    async def cancel(self, episodes: Sequence[tuple[int, int]]) -> None:
        """End these (group_id, index) episodes early; their ``run`` returns with stop CANCELLED."""
        raise NotImplementedError

    async def status(self) -> WorkerStatus:
        """What runs here, on what task, and for how long."""
        raise NotImplementedError

    async def close(self) -> None:
        """Cancel what runs and stop the engine."""
        raise NotImplementedError
