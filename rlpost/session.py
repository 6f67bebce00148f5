"""Everything a run needs, started in the right order and ended whatever happens: the warm start in a process of its
own, then Ray, the learner and the rollout workers, then the first publication.

Left out: the loop (controller.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlpost.algorithms.base import Algorithm
from rlpost.cluster import ray_cluster
from rlpost.envs.base import EnvError, Task
from rlpost.faults import RunError
from rlpost.learner.batch import LearnerSetup
from rlpost.learner.errors import ModelError
from rlpost.learner.group import LearnerGroup
from rlpost.learner.lora import check_targets
from rlpost.learner.source import materialise
from rlpost.placement import Placement, place
from rlpost.progress import Progress
from rlpost.recipe import LoadedRecipe, Recipe
from rlpost.reward.plugins import Plugin
from rlpost.reward.sandbox import ALLOWED
from rlpost.rollout.engine import ENGINES
from rlpost.rollout.specs import WorkerSetup
from rlpost.rollout.vllm.config import engine_environment
from rlpost.rollout.weight_update import Adapters
from rlpost.runfolder import RunFolder
from rlpost.sampling import SourceWeights
from rlpost.sandbox_choice import put_in_force
from rlpost.seats import Seats, place_in_cluster, reserve
from rlpost.tasks import load_source_weights, load_tasks
from rlpost.verify import Verifier
from rlpost.warm_start import WarmStartJob, locate_data, warm_start
from rlpost.weights import Publisher
from rlpost.workers import WorkerPool


@dataclass(slots=True)
class Session:
    """A running learner and its workers, all at the same policy version."""

    loaded: LoadedRecipe
    folder: RunFolder
    model: Path
    progress: Progress
    algorithm: Algorithm
    train: Sequence[Task]
    held_out: Sequence[Task]
    learner: LearnerGroup
    pool: WorkerPool
    publisher: Publisher
    source_weights: SourceWeights | None = None

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.loaded.recipe


@contextlib.contextmanager
def open_session(
    loaded: LoadedRecipe, folder: RunFolder, progress: Progress, checkpoint: tuple[int, Path] | None = None
) -> Iterator[Session]:
    """Start all actors at version 0, or at a checkpoint's version, and end them on the way out.

    Raises:
        RunError: anything that keeps the run from starting, in words.
    """
    recipe = loaded.recipe
    place(recipe)  # what cannot be is refused before anything starts
    put_in_force(recipe.sandbox, progress.note)
    train, held_out, weights = _tasks(loaded)
    with ray_cluster(recipe.cluster.address, loaded.packages) as ray_is_up, contextlib.ExitStack() as ending:
        version = 0 if checkpoint is None else checkpoint[0]
        model = first_model(loaded, folder, progress, resumed=checkpoint is not None)
        progress.phase("starting Ray, the learner and the engines")
        ray_is_up()
        placement = place_in_cluster(recipe)
        seats = ending.enter_context(reserve(placement))
        learner = start_learner(loaded, model, placement, seats)
        pool = start_workers(loaded, model, placement, progress, seats)
        try:
            pool.wait_ready()
            learner.wait_ready()
            if checkpoint is not None:
                learner.load(checkpoint[1])
            yield Session(
                loaded=loaded,
                folder=folder,
                model=model,
                progress=progress,
                algorithm=loaded.built,
                train=train,
                held_out=held_out,
                learner=learner,
                pool=pool,
                publisher=first_publication(loaded, placement, learner, pool, version),
                source_weights=weights,
            )
        finally:
            pool.close()
            learner.close()


def first_publication(
    loaded: LoadedRecipe, placement: Placement, learner: LearnerGroup, pool: WorkerPool, version: int
) -> Publisher:
    """The publisher of a run, once every worker has the learner's weights as ``version``, verified."""
    recipe = loaded.recipe
    temperature, bound = recipe.rollout.temperature, recipe.gap_bound(placement.device)
    # A masked-diffusion model fills blocks; a row of full length says nothing of its positions.
    longest = recipe.rollout.max_context if recipe.diffusion is None else 0
    publisher = Publisher(
        learner,
        pool,
        Verifier(learner, temperature, bound, recipe.seed, longest, history=not recipe.deterministic),
        temperature,
        placement.transport.connects,
        recipe.engine.tensor_parallel,
    )
    publisher.publish(version).verified()
    return publisher


def _tasks(loaded: LoadedRecipe) -> tuple[Sequence[Task], Sequence[Task], SourceWeights | None]:
    try:
        train, held_out = load_tasks(loaded)
        weights = load_source_weights(loaded, train)
    except EnvError as error:
        raise RunError(str(error)) from error
    width, spare = loaded.recipe.batch.tasks, loaded.built.refill_budget
    if len(train) < width + spare:
        further = f" and algorithm.advantage.refill for up to {spare} further ones" if spare else ""
        raise RunError(
            f"batch.tasks asks for {width} distinct tasks a step{further}, and there are only {len(train)} training "
            "tasks"
        )
    return train, held_out, weights


def first_model(loaded: LoadedRecipe, folder: RunFolder, progress: Progress, resumed: bool = False) -> Path:
    """The model the run starts from as a folder (or hub name): built, converted, warm-started. A run that goes on
    starts from it too, and its weights come after: no checkpoint that may be removed is read again."""
    recipe = loaded.recipe
    made = next((place for place in (folder.warm_model, folder.model) if (place / "config.json").is_file()), None)
    if resumed and made is not None:
        return made
    kind = loaded.built.model
    try:
        model = materialise(recipe.model, folder.model, recipe.seed, kind, convert=recipe.warm_start is not None)
        if recipe.learner.lora is not None:
            check_targets(model, recipe.learner.lora, recipe.model.trust_remote_code)
    except ModelError as error:
        raise RunError(str(error)) from error
    if recipe.warm_start is None:
        return model
    progress.phase("warm start: supervised training on demonstrations")
    job = WarmStartJob(
        config=recipe.warm_start,
        model=str(model),
        output=str(folder.warm_model),
        data=locate_data(recipe.warm_start.data, loaded.folder),
        env=loaded.env,
        env_options=loaded.env_options,
        rollout=recipe.rollout,
        trust_remote_code=recipe.model.trust_remote_code,
        seed=recipe.seed,
        diffusion=recipe.diffusion,
    )
    return warm_start(job, progress.phase, progress.note, recipe.cluster.deadline_s)


def compiles(recipe: Recipe, device: str) -> bool:
    """Whether the learner's layers are compiled: on one GPU, in a run long enough to earn back the minute it takes."""
    return device == "cuda" and recipe.learner.ranks == 1 and recipe.steps >= 100 and not recipe.engine.enforce_eager


def learner_setup(loaded: LoadedRecipe, model: Path, placement: Placement) -> LearnerSetup:
    """What every rank of the learner is started with."""
    recipe = loaded.recipe
    return LearnerSetup(
        folder=model,
        config=recipe.learner,
        algorithm=loaded.algorithm,
        algorithm_options=loaded.algorithm_options,
        optimizer=loaded.optimizer,
        trust_remote_code=recipe.model.trust_remote_code,
        seed=recipe.seed,
        collective_timeout_s=recipe.cluster.deadline_s,
        transport=placement.transport.name,
        publish_dtype=recipe.engine.compute_dtype(placement.device),
        compiled=compiles(recipe, placement.device),
        max_context=recipe.rollout.max_context,
        yields_memory=recipe.engine.sleep,
    )


def start_learner(loaded: LoadedRecipe, model: Path, placement: Placement, seats: Seats) -> LearnerGroup:
    """The learner's ranks; returns at once, ``wait_ready`` blocks."""
    setup = learner_setup(loaded, model, placement)
    return LearnerGroup(setup, seats.learner, deadline_s=loaded.recipe.cluster.deadline_s)


def start_workers(
    loaded: LoadedRecipe, model: Path, placement: Placement, progress: Progress, seats: Seats | None = None
) -> WorkerPool:
    """The rollout workers; returns at once, ``wait_ready`` blocks. Without ``seats`` Ray places them."""
    recipe, lora = loaded.recipe, loaded.recipe.learner.lora
    engine, own_options = _engine(loaded, placement)
    setup = WorkerSetup(
        model_folder=str(model),
        engine=engine,
        env=loaded.env,
        config=recipe.rollout,
        engine_options={
            "model": str(model),
            "max_context": recipe.rollout.max_context,
            "seed": recipe.seed,
            "deterministic": recipe.deterministic,
            "version": 0,
            "transport": placement.transport.name,
            "trust_remote_code": recipe.model.trust_remote_code,
            "adapters": Adapters(lora.rank, lora.targets) if lora else None,
            **own_options,
        },
        env_options=loaded.env_options,
        trust_remote_code=recipe.model.trust_remote_code,
        deterministic=recipe.deterministic,
    )
    variables = engine_environment(recipe.engine, placement.device, lora is not None)
    variables |= ALLOWED if recipe.sandbox == "unsafe" else {}
    environment = {"runtime_env": {"env_vars": variables}}
    seat = (seats or Seats(placement)).worker
    options = [environment | seat(index) for index in range(recipe.rollout.workers)]
    return WorkerPool(setup, options, recipe.cluster.deadline_s, progress.note)


def _engine(loaded: LoadedRecipe, placement: Placement) -> tuple[Plugin, dict[str, Any]]:
    """The engine for the kind of model that the algorithm trains, and the options that only it takes."""
    recipe = loaded.recipe
    if recipe.diffusion is None:
        own_process = placement.device == "cuda" and not recipe.deterministic
        options = {"config": recipe.engine, "own_process": own_process}
        return ENGINES.locate("vllm"), options
    return ENGINES.locate("diffusion"), {
        "config": recipe.diffusion,
        "dtype": recipe.engine.compute_dtype(placement.device),
        "device": placement.device,
        "slots": recipe.engine.slots,
    }
