"""The tasks of a run: from the recipe's data files, or from the environment itself; train and held-out disjoint.

Left out: reading files (envs/load.py) and drawing a step's tasks (sampling.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from envs.base import Env, EnvError, Task
from envs.load import load_tasks as load_file
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


def _split(loaded: LoadedRecipe, split: str) -> Sequence[Task]:
    recipe = loaded.recipe
    name = recipe.data.train if split == "train" else recipe.data.eval
    key = f"data.{split}"
    if name is None:
        env: type[Env] = loaded.env.load()
        tasks = env.tasks(split, recipe.seed, **loaded.env_options)
        key = f"env.name ({loaded.env.target}.tasks('{split}'))"
    else:
        nearby, (dataset, _, named) = loaded.folder / name, name.partition("@")
        hub_split = named or ("train" if split == "train" else "test")
        tasks = load_file(nearby) if nearby.exists() else load_file(dataset, hub_split)
    if not tasks:
        raise EnvError(f"{key} gives no tasks")
    return tasks


def _content(task: Task) -> str:
    return json.dumps(task.data, sort_keys=True, default=str)
