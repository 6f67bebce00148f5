"""One evaluation from valid settings to ``results.json``: plan, model, workers, answers, numbers.

What can be known without the model's weights is checked before any is loaded. Left out: the command line (cli.py).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlpost.cluster import ray_cluster
from rlpost.eval.benchmark import EvalError
from rlpost.eval.display import Display
from rlpost.eval.page import build_page
from rlpost.eval.plan import Plan, settings_of
from rlpost.eval.play import play, sample_of
from rlpost.eval.results import summarise, write_results
from rlpost.eval.samples import Key, Sample, SampleFile, check_folder, make_folder, write_sorted
from rlpost.eval.settings import EvalSettings, run_of
from rlpost.placement import count_gpus
from rlpost.reward.plugins import Plugin, packages
from rlpost.reward.sandbox import ALLOWED
from rlpost.rollout.engine import ENGINES
from rlpost.rollout.specs import EpisodeSpec, Setting, WorkerSetup
from rlpost.rollout.trajectory import Trajectory
from rlpost.rollout.vllm.config import engine_environment
from rlpost.runfolder import RunFolder
from rlpost.sandbox_choice import put_in_force
from rlpost.workers import RolloutActor, WorkerPool

ENGINE = ENGINES.locate("vllm")


def evaluate(plan: Plan, out: Path, display: Display, engine: Plugin = ENGINE) -> dict[str, Any]:
    """Play what is missing in ``out`` and write what it comes to; the content of ``results.json``.

    Args:
        plan: what to evaluate.
        out: the folder; an interrupted evaluation of the same plan goes on in it.
        display: what the user sees meanwhile.
        engine: what each worker builds its engine with.

    Raises:
        EvalError: it cannot be done as asked; nothing was started.
        RunError: a fault it cannot go on with; what was answered so far is kept.
    """
    settings = plan.settings
    gpus = _gpus(settings, count_gpus())
    samples = check_folder(out, plan)
    missing = [spec for spec in plan.specs() if _key(spec) not in samples]
    played: list[Sample] = []
    engines: list[dict[str, float]] = []
    began = ended = time.monotonic()
    if missing:
        model = model_of(settings, out, settings.engine.compute_dtype("cuda" if gpus else "cpu") == "fp32")
        wanted, chat = settings_of(plan, model[0])
        make_folder(out, plan)
        display.phase("starting Ray and the engines")
        with _workers(settings, model, wanted, engine, gpus, display) as pool, SampleFile(out) as file:
            display.start(len(missing), len(samples), sum(sample.right for sample in samples.values()))
            began = time.monotonic()

            def done(spec: EpisodeSpec, trajectory: Trajectory) -> None:
                sample = sample_of(spec, trajectory, wanted[spec.setting], chat)
                file.add(sample)
                played.append(sample)
                display.answer(sample)

            play(pool, missing, 4 * settings.engine.slots, settings.cluster.deadline_s, done)
            ended = time.monotonic()
            engines = [status.engine for status in pool.call_all(RolloutActor.status)]
    samples |= {sample.key: sample for sample in played}
    return _finish(plan, out, samples, ended - began, played, engines)


def _finish(
    plan: Plan,
    out: Path,
    samples: dict[Key, Sample],
    wall_s: float,
    played: Sequence[Sample],
    engines: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    ordered = [samples[_key(spec)] for spec in plan.specs()]
    write_sorted(out, ordered)
    benches = {
        name: summarise([sample for sample in ordered if sample.bench == name], plan.settings.k) for name in plan.tasks
    }
    results = write_results(out, plan.settings, benches, wall_s, played, engines)
    build_page(out)
    return results


def _key(spec: EpisodeSpec) -> Key:
    return spec.setting, spec.task.id, spec.index


def model_of(settings: EvalSettings, out: Path, exact: bool) -> tuple[Path, Path | None]:
    """The folder of the model that the settings name: of a run its last checkpoint, else what the learner would load;
    and the folder of adapters that are to be served on it. Where engines are ``exact`` (fp32) adapters are merged.

    Raises:
        EvalError: there is none.
    """
    from rlpost.learner.adapter_files import base_of, is_adapter
    from rlpost.learner.config import ModelConfig  # brings torch: seconds that a mistake in the arguments is spared
    from rlpost.learner.errors import ModelError
    from rlpost.learner.source import materialise

    name = settings.model
    if run_of(Path(name)) == Path(name):
        run = RunFolder(Path(name))
        checkpoints = run.checkpoints()
        if not checkpoints:
            raise EvalError(f"{name} is a run without a complete checkpoint; name a model folder, e.g. {run.model}")
        name = str(checkpoints[-1][1])
    try:
        if not exact and is_adapter(Path(name)):
            return base_of(Path(name)), Path(name)
        found = materialise(ModelConfig(path=name, trust_remote_code=settings.trust_remote_code), out / "model")
        return found, None
    except ModelError as error:
        raise EvalError(str(error)) from error


@contextlib.contextmanager
def _workers(
    settings: EvalSettings,
    model: tuple[Path, Path | None],
    wanted: dict[str, Setting],
    engine: Plugin,
    gpus: float,
    display: Display,
) -> Iterator[WorkerPool]:
    from rlpost.learner.adapter_files import served
    from rlpost.learner.export import DTYPES

    first, device = next(iter(wanted.values())), "cuda" if gpus else "cpu"
    folder, over = model
    adapters, update = served(over, DTYPES[settings.engine.compute_dtype(device)]) if over else (None, None)
    variables = engine_environment(settings.engine, device, adapters is not None)
    put_in_force(settings.sandbox, display.note)
    variables |= ALLOWED if settings.sandbox == "unsafe" else {}
    if settings.deterministic and gpus:
        variables["VLLM_BATCH_INVARIANT"] = "1"
    setup = WorkerSetup(
        model_folder=str(folder),
        engine=engine,
        env=first.env,
        env_options=first.env_options,
        config=first.config,
        engine_options={
            "model": str(folder),
            "config": settings.engine,
            "max_context": max(setting.config.max_context for setting in wanted.values()),
            "seed": settings.seed,
            "version": 0,
            "seeded": settings.deterministic,
            "scored": False,
            "own_process": gpus > 0 and not settings.deterministic,
            "trust_remote_code": settings.trust_remote_code,
            **({"adapters": adapters} if adapters else {}),
        },
        trust_remote_code=settings.trust_remote_code,
        settings=wanted,
    )
    options: dict[str, Any] = {
        "num_cpus": 1,
        "num_gpus": gpus,
        "runtime_env": {"env_vars": variables},
    }
    code = packages(engine, *((setting.env, setting.env_options) for setting in wanted.values()))
    with ray_cluster(settings.cluster.address, code) as ray_is_up:
        ray_is_up()
        pool = WorkerPool(setup, [options] * settings.rollout.workers, settings.cluster.deadline_s, display.note)
        try:
            pool.wait_ready()
            if update is not None:
                pool.call_all(RolloutActor.update, update)
            yield pool
        finally:
            pool.close()


def _gpus(settings: EvalSettings, here: int) -> float:
    """GPUs of each worker: what the user says, else whole ones.

    Raises:
        EvalError: this machine has not as many.
    """
    if here == 0:
        return 0.0
    each = settings.rollout.gpus or float(settings.engine.tensor_parallel)
    if settings.cluster.address is None and each * settings.rollout.workers > here + 1e-6:
        raise EvalError(
            f"{settings.rollout.workers} workers of {each:g} GPUs each and this machine has {here}; lower --workers or "
            "set rollout.gpus, e.g. rollout.gpus=0.5 with engine.gpu_memory_utilization=0.4"
        )
    return each
