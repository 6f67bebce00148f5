"""What an evaluation is: typed and checked before anything starts, and written into its folder so that it can go on.

Left out: the command line (cli.py) and what a benchmark is (benchmark.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlpost.cluster_config import ClusterSection
from rlpost.eval.benchmark import EvalError
from rlpost.eval.find import find, short_name
from rlpost.recipe_source import RecipeError, RecipeSource, apply_override, check_numbers, explained
from rlpost.report.files import RECIPE
from rlpost.reward.validation import problems
from rlpost.rollout.config import RolloutConfig
from rlpost.rollout.vllm.config import VllmConfig

_ROLLOUT = {"max_concurrent": 1024, "deadline_s": 1800.0}
"""Answers may wait for their judges, the engine never for answers."""
_ENGINE = {"slots": 256, "gpu_memory_utilization": 0.85}


class EvalSettings(BaseModel):
    """All that the numbers depend on, and where the engines run.

    ``deterministic``: on a GPU, every sample draws from its own seed and vLLM's kernels do not depend on the batch, so
    that an evaluation repeats number for number; slower. On a CPU both are always so in fp32. ``env_options``: keyword
    arguments of the environment of benchmarks that are one.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    model: str
    bench: tuple[str, ...] = Field(min_length=1)
    n: int = Field(1, ge=1)
    k: tuple[int, ...] = (1,)
    temperature: float = Field(0.0, ge=0)
    limit: int | None = Field(None, ge=1)
    shots: int = Field(0, ge=0)
    prompts: Literal["chat", "base"] = "chat"
    max_new_tokens: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0, lt=2**31)
    data: dict[str, str] = Field(default_factory=dict)
    env_options: dict[str, Any] = Field(default_factory=dict)
    deterministic: bool = False
    trust_remote_code: bool = False
    sandbox: Literal["isolated", "unsafe"] = "isolated"
    rollout: RolloutConfig = RolloutConfig()
    engine: VllmConfig = VllmConfig()
    cluster: ClusterSection = ClusterSection()

    @property
    def numbers(self) -> dict[str, Any]:
        """What the numbers depend on, for a folder that is to be gone on with: not how many workers there are."""
        values = self.model_dump(mode="json", exclude={"k", "cluster", "engine", "sandbox"})
        values["rollout"] = {key: values["rollout"][key] for key in ("chat", "separator", "max_turns", "max_context")}
        return {**values, "bench": [_identity(name) for name in self.bench], "dtype": self.engine.dtype}


def settle(given: dict[str, Any], overrides: list[str]) -> EvalSettings:
    """Settings from the command line's options (those that are None were not given) and ``dotted.key=value`` texts.

    Where the model is a run folder, its recipe says how the model talks: chat template or plain text, turns, context.

    Raises:
        EvalError: something cannot be; the message names it.
    """
    values = {key: value for key, value in given.items() if value is not None}
    recipe = _recipe_of(Path(str(values["model"])))
    rollout = {key: recipe.get("rollout", {})[key] for key in _KEPT if key in recipe.get("rollout", {})}
    values["rollout"] = {**_ROLLOUT, **rollout}
    values["engine"] = dict(_ENGINE)
    values.setdefault("trust_remote_code", recipe.get("model", {}).get("trust_remote_code", False))
    values.setdefault("prompts", "base" if rollout.get("chat") == "plain" else "chat")
    values.setdefault("temperature", 0.0 if values.get("n", 1) == 1 else 1.0)
    values.setdefault("env_options", _env_options(recipe, values["bench"]))
    values.setdefault("k", sorted({1, values.get("n", 1)}))
    source = RecipeSource(values, name="rlpost eval")
    try:
        for override in overrides:
            apply_override(source, override)
        check_numbers(source)
    except RecipeError as error:
        raise EvalError(str(error)) from None
    try:
        settings = EvalSettings.model_validate(source.values)
    except ValidationError as error:
        raise EvalError(explained(problems(error, EvalSettings), source)) from None
    _check(settings)
    return settings


_KEPT = ("chat", "separator", "max_turns", "max_new_tokens", "max_context", "observation_tokens")


def _env_options(recipe: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """What the run's recipe tells its environment, where that is a benchmark's."""
    env = recipe.get("env", {})
    played = {found.env.target for found in map(find, names) if found.env is not None}
    return dict(env.get("options", {})) if env.get("name") in played else {}


def _check(settings: EvalSettings) -> None:
    wrong = [k for k in settings.k if not 1 <= k <= settings.n]
    if wrong:
        raise EvalError(
            f"pass@{wrong[0]} needs at least {max(1, wrong[0])} samples a question and n is {settings.n}; raise --n or "
            "lower --k"
        )
    if settings.temperature == 0 and settings.n > 1:
        raise EvalError(
            f"at --temperature 0 all {settings.n} samples of a question are the same; leave --n out or raise it"
        )
    known = {part for name in settings.bench for part in (short_name(name), f"{short_name(name)}.shots")}
    strangers = [name for name in settings.data if name not in known]
    if strangers:
        raise EvalError(f"--data {strangers[0]}=...: there is no such name here; there are {', '.join(sorted(known))}")


def _identity(name: str) -> str:
    """A benchmark's name; of a user's file also what it says, as it may lie elsewhere or have changed."""
    if not name.endswith(".py"):
        return short_name(name)
    return f"{short_name(name)}, file {hashlib.sha256(Path(name).read_bytes()).hexdigest()[:12]}"


def _recipe_of(model: Path) -> dict[str, Any]:
    """The recipe of the run that ``model`` is, or lies in; empty where it is no run."""
    folder = run_of(model)
    return {} if folder is None else dict(yaml.safe_load((folder / RECIPE).read_text()))


def run_of(model: Path) -> Path | None:
    """The folder of the run that a path names: itself, or the one that the checkpoint lies in."""
    for place in (model, model.parent.parent):
        if place != Path(".") and (place / RECIPE).is_file():
            return place
    return None
