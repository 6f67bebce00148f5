"""From a recipe's text to a recipe that can run: keys validated, the code it names found, and both checked together.

``Recipe.load`` refuses what cannot run, with key and line, before anything starts. Left out: the keys themselves
(recipe_keys.py), and what fits what (recipe_checks.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rlpost.algorithms.base import Algorithm, AlgorithmError
from rlpost.algorithms.registry import ALGORITHMS, build
from rlpost.algorithms.selection import SELECTORS
from rlpost.envs.registry import ENVIRONMENTS
from rlpost.learner.config import OPTIMIZERS
from rlpost.recipe_checks import check
from rlpost.recipe_keys import RecipeKeys
from rlpost.recipe_sections import DiffusionEngine
from rlpost.recipe_source import RecipeError, RecipeSource, check_numbers, explained, read
from rlpost.reward.packages import Package
from rlpost.reward.plugins import Plugin, PluginError, located, named, packages
from rlpost.reward.registry import Registry
from rlpost.reward.validation import KeyPath, Problem, problems

__all__ = ["LoadedRecipe", "Recipe", "RecipeError", "resolve"]


class Recipe(RecipeKeys):
    """Everything a run is made of. ``rlpost explain`` prints what follows from it."""

    @classmethod
    def load(cls, path: Path, overrides: list[str] | None = None) -> LoadedRecipe:
        """Read, override, validate, and find the user's own code.

        Raises:
            RecipeError: anything that cannot run; the message has one line a problem, each with key and line.
        """
        return resolve(read(path, overrides or []))


@dataclass(frozen=True)
class LoadedRecipe:
    """A valid recipe with the code it names located; a user's own is read with its folder.

    Attributes:
        recipe: the typed recipe.
        env: the environment class, ready to travel.
        env_options: ``env.options``, with the user's own code among them ready to travel too.
        algorithm: the algorithm class, ready to travel; ``algorithm_options`` are its own keys of the recipe.
        optimizer: the optimizer, ready to travel.
        built: the algorithm, made of these once for this process.
        folder: where the recipe's own relative paths start.
    """

    recipe: Recipe
    env: Plugin
    env_options: dict[str, Any]
    algorithm: Plugin
    algorithm_options: dict[str, Any]
    optimizer: Plugin
    built: Algorithm
    folder: Path

    @property
    def has_rollouts(self) -> bool:
        """Whether episodes are played, or data alone is learned from."""
        return self.built.trainer == "policy"

    @cached_property
    def packages(self) -> list[Package]:
        """The folders of the user's own code, which every process of the run needs."""
        return packages(self.env, self.env_options, self.algorithm, self.algorithm_options, self.optimizer)

    def dump(self) -> str:
        """The resolved recipe as YAML; paths of user code are absolute so that it can be run from anywhere."""
        values = self.recipe.model_dump(mode="json")
        values["env"] = {"name": self.env.target, "options": named(self.env_options)}
        values["algorithm"] = {"name": self.algorithm.target, **named(self.algorithm_options)}
        if self.optimizer.package is not None:
            values["learner"]["optimizer"]["name"] = self.optimizer.target
        return yaml.safe_dump(values, sort_keys=False)


def resolve(source: RecipeSource) -> LoadedRecipe:
    """Validate a parsed recipe and find its code; see ``Recipe.load``."""
    check_numbers(source)
    try:
        recipe = Recipe.model_validate(source.values)
    except ValidationError as error:
        raise RecipeError(explained(problems(error, Recipe), source)) from None
    try:
        env = _find(ENVIRONMENTS, recipe.env.name, ("env", "name"), source)
        algorithm = _find(ALGORITHMS, _named(recipe.algorithm, "algorithm"), ("algorithm", "name"), source)
        options = {key: value for key, value in recipe.algorithm.items() if key != "name"}
        select = options.get("select")
        if isinstance(select, dict) and "name" in select:
            found = _find(SELECTORS, select["name"], ("algorithm", "select", "name"), source)
            # A short name stays one: the run folder's recipe shows it, and it needs nothing to travel.
            options["select"] = select | ({"name": found} if select["name"] not in SELECTORS.names else {})
        built = build(algorithm, options)
        loaded = LoadedRecipe(
            recipe=recipe if built.model == "causal" else _for_diffusion(recipe),
            env=env,
            env_options=_env_options(recipe.env.options, env, source),
            algorithm=algorithm,
            algorithm_options=options,
            optimizer=_find(OPTIMIZERS, recipe.learner.optimizer.name, ("learner", "optimizer", "name"), source),
            built=built,
            folder=source.folder,
        )
    except AlgorithmError as error:
        raise RecipeError(explained([one.below("algorithm") for one in error.problems], source)) from None
    wrong = check(recipe, loaded.built, loaded.env.load(), loaded.env_options, loaded.optimizer)
    if wrong:
        raise RecipeError(explained(wrong, source))
    return loaded


def _named(section: dict[str, Any], key: str) -> Any:
    if "name" not in section:
        raise AlgorithmError("the key 'name' is required, e.g. name: loop")
    return section["name"]


def _text_of(path: object, key: str, source: RecipeSource) -> Any:
    """The text of the file that an option names; a text of several lines is one already, as in a run's own copy."""
    if not isinstance(path, str) or "\n" in path:
        return path
    for place in (source.folder / path, Path(path)):
        if place.is_file():
            return place.read_text(encoding="utf-8")
    why = f"there is no file {source.folder / path}"
    raise RecipeError(explained([Problem(("env", "options", key), why)], source))


def _find(registry: Registry, name: Any, path: KeyPath, source: RecipeSource) -> Plugin:
    """The code of that name, once it is known to load and to be what it should be."""
    try:
        plugin = registry.locate(name, source.folder)
        if name not in registry.names:
            registry.load(plugin)
    except PluginError as error:
        raise RecipeError(explained([Problem(path, str(error))], source)) from None
    return plugin


def _env_options(options: dict[str, Any], env: Plugin, source: RecipeSource) -> dict[str, Any]:
    """The options as the environment gets them: files of code located, files of text (``Env.text_options``) read."""
    texts = getattr(env.load(), "text_options", ())
    found = {}
    for key, value in options.items():
        if key in texts:
            found[key] = _text_of(value, key, source)
            continue
        try:
            found[key] = located(value, source.folder)
        except PluginError as error:
            raise RecipeError(explained([Problem(("env", "options", key), str(error))], source)) from None
    return found


def _for_diffusion(recipe: Recipe) -> Recipe:
    """The recipe with an ``engine`` section for masked-diffusion models, also where none of their keys was given."""
    engine = DiffusionEngine.model_validate(recipe.engine.model_dump())
    return recipe.model_copy(update={"engine": engine})
