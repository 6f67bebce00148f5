"""``--smoke``: the same recipe with everything large replaced, so that it runs on a CPU in well under a minute.

Model, tokenizer and data files become tiny built-in ones; environment, algorithm and the whole path between them stay
the recipe's own. Left out: any check that the small run learns something.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlpost.algorithms.registry import ALGORITHMS
from rlpost.envs.registry import ENVIRONMENTS
from rlpost.envs.single_turn import SingleTurn
from rlpost.recipe_source import RecipeSource
from rlpost.reward.plugins import PluginError
from rlpost.reward.registry import Registry

STEPS = 2


def shrink(source: RecipeSource, folder: Path) -> None:
    """Change a parsed recipe in place; small data files are written below ``folder``."""
    values = source.values
    values["steps"] = min(int(values.get("steps", STEPS)), STEPS)
    lora = _section(values, "learner").get("lora")
    values["model"] = {"build": {"hidden": 64, "layers": 2, "heads": 2, "intermediate": 64}}
    if getattr(_named(source, "algorithm", ALGORITHMS, object), "model", "") == "diffusion":
        _section(values, "engine").update({"block": 4, "steps": None})
        _section(values, "algorithm").update({"n_t": 2} if "n_t" in values["algorithm"] else {})
    learner = _section(values, "learner")
    learner.update({"device": "cpu", "ranks": 1, "dtype": "fp32", "threads": 2})
    _section(values, "sync")["transport"] = "auto"
    if lora is not None:
        lora.update({"rank": 2})
    _shrink_rollouts(values)
    if values.get("warm_start"):
        values["warm_start"].update({"steps": 2, "batch_size": 4})
    data = _section(values, "data")
    for split in ("train", "eval"):
        if data.get(split):
            data[split] = str(_additions(folder / f"smoke_{split}.jsonl", first=0 if split == "train" else 500))
            if issubclass(_named(source, "env", ENVIRONMENTS, object), SingleTurn):
                _section(_section(values, "env"), "options")["prompt"] = "prompt"  # the column's name in these files
    _shrink_sources(_section(values, "algorithm"), folder)
    values["save"] = {**_section(values, "save"), "every": 0}
    for path in [path for path in source.lines if path[0] in ("steps", "model")]:
        del source.lines[path]


def _named(source: RecipeSource, section: str, registry: Registry, otherwise: type) -> type:
    """The class that a section names; whatever is wrong with it is said when the recipe is checked."""
    named = source.values.get(section)
    try:
        found: type = registry.load(named.get("name") if isinstance(named, dict) else None, source.folder)
        return found
    except PluginError:
        return otherwise


def _shrink_rollouts(values: dict[str, Any]) -> None:
    batch = _section(values, "batch")
    batch["tasks"] = min(int(batch.get("tasks", 16)), 4)
    batch["group_size"] = min(int(batch.get("group_size", 8)), 4)
    rollout = _section(values, "rollout")
    rollout["workers"] = 1
    rollout["max_turns"] = min(int(rollout.get("max_turns", 1)), 3)
    rollout["max_new_tokens"] = min(int(rollout.get("max_new_tokens", 256)), 8)
    rollout["max_context"] = 4096  # bytes are tokens: prompts are several times longer than with a real tokenizer
    rollout["observation_tokens"] = min(int(rollout.get("observation_tokens", 1024)), 256)
    engine = _section(values, "engine")
    engine.update({"tensor_parallel": 1, "dtype": "fp32", "kv_cache_gib": 0.25})
    evaluation = _section(values, "eval")
    evaluation.update({"episodes": min(int(evaluation.get("episodes", 256)), 4), "every": 0})
    algorithm = _section(values, "algorithm")
    if "minibatches" in algorithm:
        algorithm["minibatches"] = min(int(algorithm["minibatches"]), 2)


def _shrink_sources(algorithm: dict[str, Any], folder: Path) -> None:
    """Data files of an algorithm that brings its own."""
    sources = [{"data": one} if isinstance(one, str) else dict(one) for one in algorithm.get("sources", [])]
    if not sources:
        return
    for number, source in enumerate(sources):
        source.setdefault("name", f"source-{number}")
        source.pop("column", None)
        source["data"] = str(_additions(folder / f"smoke_source_{number}.jsonl", first=32 * number))
    if len(sources) == 1:
        sources.append({"name": "other", "data": str(_additions(folder / "smoke_source_1.jsonl", first=32))})
    algorithm.update({"sources": sources, "batch_size": 4, "sft_examples": 8})
    for place, key in enumerate(("validation", "test"), start=1):
        if algorithm.get(key):
            algorithm[key] = {"data": str(_additions(folder / f"smoke_{key}.jsonl", first=1000 * place))}


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    section = values.get(name)
    if not isinstance(section, dict):
        section = {}
        values[name] = section
    return section


def _additions(path: Path, first: int) -> Path:
    """A few dozen sums, with answers in GSM8K's form."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [(first + i, (first + i) % 7 + i % 3) for i in range(32)]
    lines = [{"id": f"sum-{a}-{b}", "prompt": f"{a}+{b}=", "answer": f"#### {a + b}"} for a, b in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
