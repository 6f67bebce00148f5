"""The recipe: typed, strict, documented. It composes each part's own config and checks what no part can see alone.

``Recipe.load`` reads YAML plus overrides and refuses what cannot run, with key and line, before anything starts.
Left out: the algorithms' own keys (each algorithm brings a config class; algorithms/registry.py parses them).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from rlpost.algorithms.base import Algorithm, AlgorithmError
from rlpost.algorithms.registry import build, locate
from rlpost.cluster_config import ClusterSection
from rlpost.learner.config import LearnerConfig, ModelConfig
from rlpost.recipe_sections import (
    BatchSection,
    DataSection,
    DiffusionEngine,
    Engine,
    EnvSection,
    EvalSection,
    Part,
    SaveSection,
    SyncSection,
)
from rlpost.recipe_source import KeyPath, RecipeError, RecipeSource, explain_validation, read
from rlpost.reward.plugins import Plugin, PluginError
from rlpost.rollout.config import RolloutConfig
from rlpost.rollout.diffusion.config import DiffusionConfig
from rlpost.rollout.vllm.config import VllmConfig
from rlpost.warm_start import WarmStartConfig

__all__ = ["Recipe", "RecipeError"]


class Recipe(Part):
    """Everything a run is made of. ``rlpost explain`` prints what follows from it."""

    model: ModelConfig
    env: EnvSection = Field(default_factory=lambda: EnvSection(name="rlpost.envs.base:Env"))
    algorithm: dict[str, Any] = Field(
        default_factory=lambda: {"name": "grpo"}, description="name, and the algorithm's own keys"
    )
    steps: int = Field(100, ge=0, description="steps: one batch of rollouts, one publication, one policy version each")
    seed: int = Field(0, ge=0, lt=2**31, description="every random draw of the run derives from it")
    lag: int = Field(0, ge=0, le=8, description="0: synchronous; n: rollouts run up to n policy versions ahead")
    deterministic: bool = Field(False, description="same metrics bit for bit on a CPU in fp32; slower")
    sandbox: Literal["isolated", "unsafe"] = Field(
        "isolated", description="unsafe: run model-written code with your rights where the host cannot isolate it"
    )
    warm_start: WarmStartConfig | None = None
    data: DataSection = Field(default_factory=DataSection)
    batch: BatchSection = Field(default_factory=BatchSection)
    rollout: RolloutConfig = Field(default_factory=RolloutConfig)
    engine: Engine = Field(default_factory=VllmConfig)
    learner: LearnerConfig = Field(default_factory=LearnerConfig)
    sync: SyncSection = Field(default_factory=SyncSection)
    eval: EvalSection = Field(default_factory=EvalSection)
    save: SaveSection = Field(default_factory=SaveSection)
    cluster: ClusterSection = Field(default_factory=ClusterSection)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """What two sections say together must be possible."""
        room = self.rollout.max_context - self.rollout.max_new_tokens
        if room <= 0:
            raise ValueError(
                f"rollout.max_context ({self.rollout.max_context}) leaves no room for a prompt beside "
                f"rollout.max_new_tokens ({self.rollout.max_new_tokens})"
            )
        if self.lag > 0 and self.deterministic:
            raise ValueError("deterministic: true needs lag: 0; overlapping generation depends on timing")
        if self.lag > 0 and self.engine.sleep:
            raise ValueError("engine.sleep: true needs lag: 0; with a lag the engine samples while the learner works")
        if self.deterministic and self.batch.straggler is not None:
            raise ValueError("deterministic: true cannot go with batch.straggler; which episodes are cut is timing")
        return self

    @property
    def diffusion(self) -> DiffusionConfig | None:
        """How responses are filled where the algorithm trains a masked-diffusion model; None where vLLM samples."""
        return self.engine if isinstance(self.engine, DiffusionConfig) else None

    @property
    def rollouts_per_step(self) -> int:
        """Episodes a step."""
        return self.batch.tasks * self.batch.group_size

    def gap_bound(self, device: str) -> float:
        """The bound in force on the mean |log-prob difference| between learner and engine on ``device``."""
        if self.sync.gap_bound is not None:
            return self.sync.gap_bound
        exact = self.learner.compute_dtype(device) == self.engine.compute_dtype(device) == "fp32"
        # Logits of a trained model rounded to bf16: two right implementations were 0.05 to 0.09 apart on the probe.
        return 1e-3 if exact else 0.2

    @classmethod
    def load(cls, path: Path, overrides: list[str] | None = None) -> LoadedRecipe:
        """Read, override, validate, and find the user's own code.

        Raises:
            RecipeError: anything that cannot run; the message has one line a problem, each with key and line.
        """
        return resolve(read(path, overrides or []))


class LoadedRecipe:
    """A valid recipe with the code it names located (and, for files, their contents read).

    Attributes:
        recipe: the typed recipe.
        env: the environment class, ready to travel.
        env_options: ``env.options``, with every ``file.py:Name`` among them located and ready to travel too.
        algorithm: the algorithm class, ready to travel; its options stand in ``recipe.algorithm``.
        folder: where the recipe's own relative paths start.
    """

    def __init__(
        self, recipe: Recipe, env: Plugin, env_options: dict[str, Any], algorithm: Plugin, folder: Path
    ) -> None:
        self.recipe = recipe
        self.env = env
        self.env_options = env_options
        self.algorithm = algorithm
        self.folder = folder

    @property
    def has_rollouts(self) -> bool:
        """Whether episodes are played, or data alone is learned from."""
        return self.build_algorithm().trainer == "policy"

    @property
    def algorithm_options(self) -> dict[str, Any]:
        """The algorithm's own keys."""
        return {key: value for key, value in self.recipe.algorithm.items() if key != "name"}

    def build_algorithm(self) -> Algorithm:
        """An instance of the algorithm."""
        return build(self.algorithm, self.algorithm_options)

    def dump(self) -> str:
        """The resolved recipe as YAML; paths of user code are absolute so that it can be run from anywhere."""
        values = self.recipe.model_dump(mode="json")
        values["env"]["name"] = self.env.target
        values["env"]["options"] = {
            key: value.target if isinstance(value, Plugin) else value for key, value in self.env_options.items()
        }
        values["algorithm"] = {"name": self.algorithm.target, **self.algorithm_options}
        return yaml.safe_dump(values, sort_keys=False)


def resolve(source: RecipeSource) -> LoadedRecipe:
    """Validate a parsed recipe; see ``Recipe.load``."""
    try:
        recipe = Recipe.model_validate(source.values)
    except ValidationError as error:
        raise RecipeError(explain_validation(error, source, Recipe)) from None
    env = _locate(source, recipe.env.name, ("env", "name"))
    texts = getattr(env.load(), "text_options", ())
    env_options = {
        key: _text_option(source, key, value)
        if key in texts
        else _locate(source, value, ("env", "options", key))
        if _names_a_file(value)
        else value
        for key, value in recipe.env.options.items()
    }
    algorithm_name = recipe.algorithm.get("name")
    if not isinstance(algorithm_name, str):
        raise RecipeError(f"{source.where(('algorithm',))}: the key 'name' is required, e.g. name: loop")
    algorithm = _locate(source, algorithm_name, ("algorithm", "name"), locate)
    loaded = LoadedRecipe(recipe, env, env_options, algorithm, source.folder)
    _check_algorithm(loaded, source)
    return loaded


def _names_a_file(value: object) -> bool:
    return isinstance(value, str) and ".py:" in value


def _text_option(source: RecipeSource, key: str, value: Any) -> Any:
    """The text of the file that an option names; a text of several lines is one already, as in a run's own copy."""
    if not isinstance(value, str) or "\n" in value:
        return value
    for path in (source.folder / value, Path(value)):
        if path.is_file():
            return path.read_text()
    raise RecipeError(f"{source.where(('env', 'options', key))}: there is no file {source.folder / value}")


def _locate(source: RecipeSource, name: str, path: KeyPath, find: Any = Plugin.locate) -> Plugin:
    try:
        plugin: Plugin = find(name, source.folder)
        plugin.load()
    except (PluginError, AlgorithmError) as error:
        raise RecipeError(f"{source.where(path)}: {error}") from None
    return plugin


def _check_algorithm(loaded: LoadedRecipe, source: RecipeSource) -> None:
    recipe = loaded.recipe
    try:
        algorithm = loaded.build_algorithm()
        algorithm.check_batch(recipe.batch.tasks, recipe.batch.group_size)
    except AlgorithmError as error:
        path: KeyPath = ("algorithm", *(error.key.split(".") if error.key else ()))
        raise RecipeError(f"{source.where(path)}: {error}") from None
    if algorithm.trainer == "bilevel":
        _check_bilevel(loaded, algorithm, source)
        return
    if "env" not in recipe.model_fields_set:
        raise RecipeError(f"{source.where(('env',))}: this key is required and missing")
    minibatches = algorithm.plan.minibatches
    if minibatches > recipe.rollouts_per_step:
        raise RecipeError(
            f"{source.where(('algorithm', 'minibatches'))}: {minibatches} mini-batches need at least that many "
            f"rollouts, but a step has batch.tasks x batch.group_size = {recipe.rollouts_per_step}"
        )
    if "ref_logprobs" in algorithm.needs and recipe.learner.lora is None:
        raise RecipeError(
            f"{source.where(('algorithm',))}: a KL reference is the LoRA-free base; with full fine-tuning there is no "
            "such base and no second copy is kept. Set learner.lora or switch the KL off"
        )
    _check_model_kind(loaded, source, algorithm)


def _check_bilevel(loaded: LoadedRecipe, algorithm: Algorithm, source: RecipeSource) -> None:
    learner = loaded.recipe.learner
    if algorithm.config.layout == "adapters" and learner.optimizer.lisa is not None:
        where = source.where(("learner", "optimizer", "name"))
        raise RecipeError(f"{where}: LISA trains whole layers, so it needs algorithm.layout: two_copies")
    if algorithm.config.layout == "two_copies" and learner.lora is not None:
        where = source.where(("learner", "lora"))
        raise RecipeError(f"{where}: algorithm.layout: two_copies has no adapters; drop it")


def _check_model_kind(loaded: LoadedRecipe, source: RecipeSource, algorithm: Algorithm) -> None:
    """What a causal and what a masked-diffusion policy cannot go with, so far as the recipe alone says it."""
    recipe = loaded.recipe
    wrong: list[tuple[KeyPath, str]] = []
    if algorithm.model == "causal":
        if recipe.diffusion is not None:
            own = ", ".join(recipe.diffusion.model_fields_set & DiffusionConfig.model_fields.keys())
            words = f"{own}: for masked-diffusion models, which bgpo, vrpo_ol and diffu_grpo train; not this algorithm"
            wrong.append((("engine",), words))
    else:
        recipe.engine = DiffusionEngine.model_validate(recipe.engine.model_dump())
        assert recipe.diffusion is not None
        block, length = recipe.diffusion.block, recipe.rollout.max_new_tokens
        if length % block:
            wrong.append((("rollout", "max_new_tokens"), f"{length} is not a multiple of engine.block ({block})"))
        if recipe.rollout.max_turns > 1:
            wrong.append((("rollout", "max_turns"), "a masked-diffusion policy answers once; set it to 1"))
        if recipe.engine.sleep or recipe.engine.tensor_parallel > 1:
            wrong.append((("engine",), "sleep and tensor_parallel are vLLM's; a masked-diffusion model has neither"))
        if recipe.sync.transport == "nccl":
            wrong.append((("sync", "transport"), "nccl: only vLLM takes weights so; set auto"))
    if recipe.lag > 0 and not algorithm.allows_lag:
        wrong.append((("lag",), "this algorithm takes no rollouts of older weights (bgpo and vrpo_ol do); set lag: 0"))
    if wrong:
        raise RecipeError("\n".join(f"{source.where(path)}: {words}" for path, words in wrong))
