"""Whether what a recipe names fits together: the algorithm and its batch, the model, the environment and its options,
the optimizer and its options, the layers that adapters go to. Checks read and report; none changes what it reads.

Left out: what the sections' own types say (recipe_keys.py), and what only the cluster can tell (placement.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlpost.algorithms.base import Algorithm, AlgorithmError
from rlpost.envs.base import Env, EnvError
from rlpost.envs.registry import option_problems
from rlpost.learner.errors import ModelError
from rlpost.learner.targets import missing_targets
from rlpost.recipe_keys import RecipeKeys
from rlpost.reward.plugins import Plugin
from rlpost.reward.validation import Problem
from rlpost.rollout.diffusion.config import DiffusionConfig

ALWAYS_THERE = frozenset({"adamw", "lisa", "apollo", "apollo_mini"})
"""Optimizers that need no further package, and are sound as they come."""


def check(
    recipe: RecipeKeys, algorithm: Algorithm, env: type[Env], env_options: dict[str, Any], optimizer: Plugin
) -> list[Problem]:
    """Everything that is wrong; paths are keys of the recipe.

    Args:
        recipe: the validated keys.
        algorithm: the one it names, built.
        env: the environment's class; ``env_options``: its options, code among them located.
        optimizer: the code of the optimizer.
    """
    found = list(_learner(recipe, optimizer))
    if algorithm.trainer == "bilevel":
        return [*found, *_bilevel(recipe, algorithm)]
    if "env" not in recipe.model_fields_set:
        return [*found, Problem(("env",), "this key is required and missing")]
    checks = (_batch(recipe, algorithm), _env(recipe, env, env_options), _model_kind(recipe, algorithm))
    return [*found, *(problem for problems in checks for problem in problems)]


def _batch(recipe: RecipeKeys, algorithm: Algorithm) -> Iterator[Problem]:
    try:
        algorithm.check_batch(recipe.batch.tasks, recipe.batch.group_size)
    except AlgorithmError as error:
        yield from (one.below("algorithm") for one in error.problems)
    minibatches = algorithm.plan.minibatches
    if minibatches > recipe.rollouts_per_step:
        yield Problem(
            ("algorithm", "minibatches"),
            f"{minibatches} mini-batches need at least that many rollouts, but a step has batch.tasks x "
            f"batch.group_size = {recipe.rollouts_per_step}",
        )
    if "ref_logprobs" in algorithm.needs and recipe.learner.lora is None:
        yield Problem(
            ("algorithm",),
            "a KL reference is the LoRA-free base; with full fine-tuning there is no such base and no second copy is "
            "kept. Set learner.lora or switch the KL off",
        )


def _env(recipe: RecipeKeys, env: type[Env], options: dict[str, Any]) -> Iterator[Problem]:
    called = ["__init__"]
    if recipe.data.train is None or (recipe.data.eval is None and recipe.eval.episodes):
        called.append("tasks")
    if recipe.warm_start is not None and recipe.warm_start.data == "env":
        called.append("demonstrations")
    wrong = option_problems(env, options, called)
    yield from (one.below("env", "options") for one in wrong)
    if wrong:
        return
    try:
        env.check_options(options)
    except EnvError as error:
        yield Problem(("env", "options", *([error.option] if error.option else [])), str(error))


def _learner(recipe: RecipeKeys, optimizer: Plugin) -> Iterator[Problem]:
    config, lora = recipe.learner.optimizer, recipe.learner.lora
    if config.options or config.name not in ALWAYS_THERE:  # to make one costs a second
        from rlpost.learner.optimizers import check_optimizer

        try:
            check_optimizer(config, optimizer)
        except ModelError as error:
            key, _, message = str(error).partition(": ")
            yield Problem(tuple(key.split(".")), message)
    if lora is not None and (message := missing_targets(recipe.model, lora)):
        yield Problem(("learner", "lora", "targets"), message)


def _bilevel(recipe: RecipeKeys, algorithm: Algorithm) -> Iterator[Problem]:
    learner = recipe.learner
    if algorithm.config.layout == "adapters" and learner.optimizer.lisa is not None:
        yield Problem(
            ("learner", "optimizer", "name"), "LISA trains whole layers, so it needs algorithm.layout: two_copies"
        )
    if algorithm.config.layout == "two_copies" and learner.lora is not None:
        yield Problem(("learner", "lora"), "algorithm.layout: two_copies has no adapters; drop it")


def _model_kind(recipe: RecipeKeys, algorithm: Algorithm) -> Iterator[Problem]:
    """What a causal and what a masked-diffusion policy cannot go with, so far as the recipe alone says it."""
    if recipe.lag > 0 and not algorithm.allows_lag:
        yield Problem(("lag",), "this algorithm takes no rollouts of older weights (bgpo and vrpo_ol do); set lag: 0")
    if algorithm.model == "causal":
        if recipe.diffusion is not None:
            own = ", ".join(recipe.diffusion.model_fields_set & DiffusionConfig.model_fields.keys())
            words = f"{own}: for masked-diffusion models, which bgpo, vrpo_ol and diffu_grpo train; not this algorithm"
            yield Problem(("engine",), words)
        return
    block = (recipe.diffusion or DiffusionConfig()).block
    length = recipe.rollout.max_new_tokens
    if length % block:
        yield Problem(("rollout", "max_new_tokens"), f"{length} is not a multiple of engine.block ({block})")
    if recipe.rollout.max_turns > 1:
        yield Problem(("rollout", "max_turns"), "a masked-diffusion policy answers once; set it to 1")
    if recipe.engine.sleep or recipe.engine.tensor_parallel > 1:
        yield Problem(("engine",), "sleep and tensor_parallel are vLLM's; a masked-diffusion model has neither")
    if recipe.sync.connects:
        yield Problem(("sync", "transport"), f"{recipe.sync.transport}: only vLLM takes weights so; set auto")
