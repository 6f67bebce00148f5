"""The tasks of a run: from the recipe's data files, or from the environment itself; train and held-out disjoint.

Left out: reading files (envs/load.py) and drawing a step's tasks (sampling.py).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rlpost.envs.base import Env, EnvError, Task
from rlpost.envs.load import load_tasks as load_file
from rlpost.recipe import LoadedRecipe


def load_tasks(loaded: LoadedRecipe) -> tuple[Sequence[Task], Sequence[Task]]:
    """Training and held-out tasks; the second is empty where ``eval.episodes`` is 0.

    Raises:
        EnvError: no tasks, a broken file, or a held-out task that is also a training task.
    """
    train = _split(loaded, "train")
    if loaded.recipe.eval.episodes == 0:
        return train, []
    held_out = _split(loaded, "eval")
    seen = {_content(task) for task in train}
    shared = [task.id for task in held_out if _content(task) in seen]
    if shared:
        raise EnvError(
            f"{len(shared)} of {len(held_out)} held-out tasks are also training tasks (first: {shared[0]}); evaluation "
            "would measure memory. Separate them, or set eval.episodes: 0"
        )
    return train, held_out


def load_source_weights(loaded: LoadedRecipe, tasks: Sequence[Task]) -> dict[str, float] | None:
    """The weights in ``data.source_weights``, by source; None where the recipe names none.

    Raises:
        EnvError: no such file; not weights; a source of the tasks without a weight, or a weighted one without tasks;
            or fewer tasks with a weight above 0 than a step wants.
    """
    name = loaded.recipe.data.source_weights
    if name is None:
        return None
    nearby = loaded.folder / name
    path = nearby if nearby.exists() else Path(name)
    try:
        content = json.loads(path.read_text())
        weights = {str(source): float(weight) for source, weight in content.get("weights", content).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise EnvError(f"data.source_weights: {path} holds no weights by source: {error}") from error
    if not all(0 <= weight < math.inf for weight in weights.values()) or sum(weights.values()) <= 0:
        raise EnvError(f"data.source_weights: the weights in {path} must be 0 or more and not all 0: {weights}")
    found = Counter(task.source for task in tasks)
    unknown = sorted(source or "(none)" for source in found if source not in weights)
    empty = sorted(source for source, weight in weights.items() if weight > 0 and source not in found)
    if unknown or empty:
        what = f"no weight for the source '{unknown[0]}'" if unknown else f"no task of the source '{empty[0]}'"
        raise EnvError(
            f"data.source_weights: {what}. The tasks' sources (column 'source') are {', '.join(sorted(found))}; the "
            f"weights in {path} are for {', '.join(weights)}"
        )
    usable = sum(count for source, count in found.items() if weights[source] > 0)
    if usable < loaded.recipe.batch.tasks:
        raise EnvError(
            f"batch.tasks asks for {loaded.recipe.batch.tasks} distinct tasks a step and only {usable} are of a source "
            "with a weight above 0"
        )
    return weights


def _split(loaded: LoadedRecipe, split: str) -> Sequence[Task]:
    recipe = loaded.recipe
    env: type[Env] = loaded.env.load()
    name = recipe.data.train if split == "train" else recipe.data.eval
    key = f"data.{split}"
    if name is None:
        tasks = env.tasks(split, recipe.seed, **loaded.env_options)
        key = f"env.name ({loaded.env.target}.tasks('{split}'))"
    else:
        nearby, (dataset, _, named) = loaded.folder / name, name.partition("@")
        hub_split = named or ("train" if split == "train" else "test")
        tasks = load_file(nearby) if nearby.exists() else load_file(dataset, hub_split)
    if not tasks:
        raise EnvError(f"{key} gives no tasks")
    try:
        env.check_tasks(tasks, **loaded.env_options)
    except EnvError as error:
        raise EnvError(f"{key}: {error}") from error
    return tasks


def _content(task: Task) -> str:
    return json.dumps(task.data, sort_keys=True, default=str)
