"""From settings to episodes: every question of every benchmark, how it is asked, in what setting, with which seeds.

Nothing here needs the model's weights: benchmarks, rows and prompts are settled first, then, with the tokenizer alone,
whether the prompts fit. Left out: playing the episodes (play.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlpost.envs.base import Task
from rlpost.envs.registry import ENVIRONMENTS, option_problems
from rlpost.eval.benchmark import Benchmark, EvalError
from rlpost.eval.find import find
from rlpost.eval.prompts import ask
from rlpost.eval.rows import shots_of, tasks_of
from rlpost.eval.settings import EvalSettings
from rlpost.reward.functions import load_reward
from rlpost.reward.plugins import PluginError, located
from rlpost.reward.score import RewardError
from rlpost.rollout.chat import ChatError, ChatFormat, load_format
from rlpost.rollout.config import RolloutConfig
from rlpost.rollout.specs import EpisodeSpec, Setting
from rlpost.sampling import EVAL_STREAM, derive_seed

MESSAGES = "messages"
"""The column of a task that holds its opening messages."""


@dataclass(frozen=True, slots=True)
class Plan:
    """An evaluation, ready but for the model.

    Attributes:
        benchmarks: by name, in the order they were asked for.
        tasks: the questions of each.
    """

    settings: EvalSettings
    benchmarks: dict[str, Benchmark]
    tasks: dict[str, list[Task]]

    def specs(self) -> Iterator[EpisodeSpec]:
        """Every episode: all samples of a question in a row. A sample's seed depends on the benchmark, the question's
        id and the sample's number alone, so a part of an evaluation, or one of another model, draws the same."""
        settings = self.settings
        for name, tasks in self.tasks.items():
            for number, task in enumerate(tasks):
                for index in range(settings.n):
                    yield EpisodeSpec(
                        task=task,
                        group_id=number,
                        index=index,
                        seed=derive_seed(settings.seed, EVAL_STREAM, _number_of(f"{name}/{task.id}"), index),
                        temperature=settings.temperature or 1.0,
                        greedy=settings.temperature == 0,
                        setting=name,
                    )


def _number_of(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def make_plan(settings: EvalSettings) -> Plan:
    """Find the benchmarks, read their rows and write the prompts.

    Raises:
        EvalError: an unknown benchmark, no data, a malformed row, a reward that cannot be loaded.
    """
    benchmarks = {benchmark.name: benchmark for benchmark in map(find, settings.bench)}
    for benchmark in benchmarks.values():
        _check_code(benchmark, settings)
    return Plan(settings, benchmarks, {name: _questions(found, settings) for name, found in benchmarks.items()})


def _check_code(benchmark: Benchmark, settings: EvalSettings) -> None:
    try:
        if benchmark.env is None:
            load_reward(benchmark.reward)
            return
        options = {**benchmark.env_options, **settings.env_options}
        called = ["__init__"] if benchmark.name in settings.data else ["__init__", "tasks"]
        wrong = option_problems(ENVIRONMENTS.load(benchmark.env), options, called)
    except (PluginError, RewardError) as error:
        raise EvalError(f"benchmark {benchmark.name}: {error}") from None
    if wrong:
        raise EvalError(f"benchmark {benchmark.name}: env_options.{wrong[0]}")


def _questions(benchmark: Benchmark, settings: EvalSettings) -> list[Task]:
    name = benchmark.name
    tasks = tasks_of(benchmark, settings.data.get(name), settings.limit, settings.seed, settings.env_options)
    if benchmark.env is not None:
        if settings.shots:
            raise EvalError(f"benchmark {name} has no worked examples; leave --shots out")
        return [replace(task, source=name) for task in tasks]
    shots = shots_of(benchmark, settings.data.get(f"{name}.shots"), settings.shots)
    return [
        replace(task, data={**task.data, MESSAGES: ask(benchmark, task, shots, settings.prompts)}, source=name)
        for task in tasks
    ]


def settings_of(plan: Plan, model: Path) -> tuple[dict[str, Setting], ChatFormat]:
    """The setting of each benchmark with its context length, and the chat format of its texts.

    Raises:
        EvalError: the model has no chat template under chat prompts, or its context is too small for a prompt and its
            answer.
    """
    chat = _format(plan.settings, model)
    room = _positions(model, plan.settings.trust_remote_code)
    found = {name: _setting(plan, benchmark, chat, room) for name, benchmark in plan.benchmarks.items()}
    return found, chat


def _format(settings: EvalSettings, model: Path) -> ChatFormat:
    kind: Any = "template" if settings.prompts == "chat" else "plain"
    try:
        return load_format(model, kind, separator="", trust_remote_code=settings.trust_remote_code)
    except ChatError as error:
        hint = " Or give --prompts base: the model then continues plain text" if kind == "template" else ""
        raise EvalError(f"{settings.model}: {error}.{hint}") from None


def _positions(model: Path, trust_remote_code: bool) -> int | None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def _setting(plan: Plan, benchmark: Benchmark, chat: ChatFormat, room: int | None) -> Setting:
    settings, rollout = plan.settings, plan.settings.rollout
    template = "template" if settings.prompts == "chat" else "plain"
    if benchmark.env is not None:
        told = rollout.model_fields_set
        turns = rollout.max_turns if "max_turns" in told else benchmark.max_turns
        tokens = rollout.max_new_tokens if "max_new_tokens" in told else benchmark.max_new_tokens
        context = (
            rollout.max_context if "max_context" in told else min(room or benchmark.max_context, benchmark.max_context)
        )
        tokens = settings.max_new_tokens or tokens
        config = _with(rollout, chat=template, max_turns=turns, max_new_tokens=tokens, max_context=context)
        return Setting(
            benchmark.env, config, located({**benchmark.env_options, **settings.env_options}), logprobs=False
        )
    tokens = settings.max_new_tokens or benchmark.max_new_tokens
    context = _fit(benchmark, plan.tasks[benchmark.name], chat, tokens, room, settings.shots)
    config = _with(rollout, chat=template, separator="", max_turns=1, max_new_tokens=tokens, max_context=context)
    options = {"reward": benchmark.reward, "prompt": MESSAGES}
    stop = benchmark.stop if settings.prompts == "base" else ()
    return Setting(ENVIRONMENTS.locate("single_turn"), config, options, stop, logprobs=False)


def _with(config: RolloutConfig, **changes: Any) -> RolloutConfig:
    return RolloutConfig.model_validate({**config.model_dump(), **changes})


def _fit(benchmark: Benchmark, tasks: list[Task], chat: ChatFormat, tokens: int, room: int | None, shots: int) -> int:
    """The context that the longest prompt and its answer take."""
    lengths = {task.id: len(chat.opening(task.data[MESSAGES])) for task in tasks}
    longest = max(lengths, key=lambda task: lengths[task])
    if room is not None and lengths[longest] + tokens > room:
        raise EvalError(
            f"benchmark {benchmark.name}: the prompt of task '{longest}' ({shots} worked examples) takes "
            f"{lengths[longest]} tokens and an answer up to {tokens}, but the model has {room} positions. Lower "
            "--shots or --max-new-tokens"
        )
    return lengths[longest] + tokens
