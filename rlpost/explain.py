"""``rlpost explain``: every number that follows from a recipe, and where each actor would go. Starts nothing.

Memory is arithmetic: weights, gradients and optimizer state of the learner; weights and cache of each engine. Left out:
activations (they depend on the longest pack; the bound printed is the logits tile and one pack of hidden states).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from rlpost.algorithms.base import Algorithm
from rlpost.placement import Placement, place
from rlpost.recipe import LoadedRecipe, Recipe, RecipeError
from rlpost.rollout.vllm.config import CPU_CACHE_GIB

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Section:
    """A titled list of (name, value) rows."""

    title: str
    rows: list[tuple[str, str]]


def print_explanation(loaded: LoadedRecipe, nodes: Sequence[int] | None = None) -> None:
    """Print all sections to the terminal; ``nodes``: GPUs of each node, see ``place``."""
    console = Console()
    for section in explain(loaded, nodes):
        table = Table(title=section.title, title_justify="left", show_header=False, box=None, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        for name, value in section.rows:
            table.add_row(name, value)
        console.print(table)
        console.print()


def explain(loaded: LoadedRecipe, nodes: Sequence[int] | None = None) -> list[Section]:
    """What follows from a recipe, on these nodes."""
    recipe, algorithm = loaded.recipe, loaded.built
    try:
        placement: Placement | str = place(recipe, nodes, loaded.has_rollouts)
    except RecipeError as error:
        placement = str(error)
    if not loaded.has_rollouts:
        rows = [("class", loaded.algorithm.target), ("steps", f"{recipe.steps} of (u, w, source weights)")]
        rows += [(name, str(value)) for name, value in algorithm.describe().items()]
        memory = Section("Memory", _bilevel_memory(recipe, algorithm, placement))
        return [Section("The algorithm", rows), memory, Section("Placement", _placement_rows(recipe, placement, 0))]
    return [
        Section("A step", _step_rows(recipe, algorithm)),
        Section("The algorithm", _algorithm_rows(loaded, algorithm)),
        Section("Memory", _memory_rows(recipe, placement)),
        Section("Placement", _placement_rows(recipe, placement, recipe.rollout.workers)),
    ]


def _step_rows(recipe: Recipe, algorithm: Algorithm) -> list[tuple[str, str]]:
    batch, rollout, plan = recipe.batch, recipe.rollout, algorithm.plan
    episodes = recipe.rollouts_per_step
    sampled = episodes * min(rollout.max_turns * rollout.max_new_tokens, rollout.max_context)
    updates = plan.epochs * plan.minibatches
    return [
        ("rollouts", f"{batch.tasks} tasks x {batch.group_size} = {episodes} episodes"),
        (
            "turns",
            f"at most {rollout.max_turns} of at most {rollout.max_new_tokens} tokens, at T = {rollout.temperature}",
        ),
        ("tokens", f"at most {episodes * rollout.max_context:,}, of them at most {sampled:,} sampled"),
        (
            "optimizer updates",
            f"{plan.epochs} epochs x {plan.minibatches} mini-batches = {updates} (fewer when skipped)",
        ),
        ("rollouts an update", f"about {episodes / plan.minibatches:g}"),
        (
            "whole run",
            f"{recipe.steps} steps, {recipe.steps * episodes:,} episodes, {recipe.steps * updates:,} updates",
        ),
        ("policy lag", _lag_words(recipe.lag)),
        ("evaluation", _eval_words(recipe)),
    ]


def _lag_words(lag: int) -> str:
    if lag == 0:
        return "0: generation waits for every update (on-policy at the start of each step)"
    return (
        f"{lag}: generation runs up to {lag} versions ahead; token weights min(exp(old - rollout), cap) correct for it"
    )


def _eval_words(recipe: Recipe) -> str:
    if recipe.eval.episodes == 0:
        return "off"
    rounds = "sampled at T = 1 and greedy" if recipe.eval.greedy else "sampled at T = 1"
    between = f", and every {recipe.eval.every} steps" if recipe.eval.every else ""
    return f"{recipe.eval.episodes} episodes {rounds}, before and after{between}"


def _algorithm_rows(loaded: LoadedRecipe, algorithm: Algorithm) -> list[tuple[str, str]]:
    one_update = algorithm.plan.epochs * algorithm.plan.minibatches == 1
    needs = ", ".join(sorted(algorithm.needs)) or "nothing"
    extra = " (old log-probs come from the update itself: no extra pass)" if one_update else ""
    rows = [("class", loaded.algorithm.target), ("needs before updating", needs + extra)]
    return rows + [(name, str(value)) for name, value in algorithm.describe().items()]


def _memory_rows(recipe: Recipe, placement: Placement | str) -> list[tuple[str, str]]:
    from rlpost.learner.logprobs import tile_rows

    device = placement.device if isinstance(placement, Placement) else "cuda"
    try:
        total, trained, vocabulary, hidden = _parameters(recipe)
    except (OSError, ValueError) as error:
        return [("model", f"its size is not known here: {str(error).splitlines()[0]}")]
    compute = 2 if recipe.learner.compute_dtype(device) == "bf16" else 4
    learner = total * 4 + trained * 4 + trained * 8
    rows = [
        ("parameters", f"{total / 1e6:,.2f} M, trained {trained / 1e6:,.2f} M"),
        (
            "learner, all ranks",
            f"{learner / GIB:,.2f} GiB: fp32 weights {total * 4 / GIB:,.2f}, gradients and AdamW state",
        ),
        ("logits alive at once", f"{tile_rows(vocabulary) * vocabulary * 4 / GIB:,.3f} GiB (one tile)"),
        (
            "hidden states of a pack",
            f"{recipe.learner.max_tokens_per_pack * hidden * compute / GIB:,.3f} GiB a layer at "
            f"{recipe.learner.max_tokens_per_pack:,} tokens",
        ),
        ("each engine", f"{total * compute / GIB:,.2f} GiB of weights, and its cache ({_cache_words(recipe, device)})"),
        ("one publication", f"{total * compute / GIB:,.3f} GiB"),
    ]
    return rows


def _bilevel_memory(recipe: Recipe, algorithm: Algorithm, placement: Placement | str) -> list[tuple[str, str]]:
    """A learner's rows, and how often they count: everything twice, or trained weights twice."""
    from rlpost.bilevel.learner import side_config

    learner = side_config(recipe.learner, algorithm.config.layout)
    rows = _memory_rows(recipe.model_copy(update={"learner": learner}), placement)[:2]
    twice = "all of this" if learner.lora is None else "trained weights, gradients and AdamW state"
    return [*rows, ("u and w", f"{twice} twice")]


def _cache_words(recipe: Recipe, device: str) -> str:
    if recipe.diffusion is not None:
        return "of the batch being decoded"
    if device == "cpu":
        return f"{recipe.engine.kv_cache_gib or CPU_CACHE_GIB:g} GiB"
    if recipe.engine.kv_cache_gib is not None:
        return f"{recipe.engine.kv_cache_gib:g} GiB"
    return f"up to {recipe.engine.gpu_memory_utilization:.0%} of the GPU in all"


def _parameters(recipe: Recipe) -> tuple[int, int, int, int]:
    """(all parameters, trained ones, vocabulary, hidden size), counted on the meta device."""
    import torch

    with torch.device("meta"):
        model = _empty_model(recipe)
    total = trained = sum(parameter.numel() for parameter in model.parameters())
    if (lora := recipe.learner.lora) is not None:
        trained = sum(
            lora.rank * (module.in_features + module.out_features)
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and name.split(".")[-1] in lora.targets
        )
    return total, trained, model.config.vocab_size, model.config.hidden_size


def _empty_model(recipe: Recipe) -> Any:
    from transformers import AutoConfig

    from rlpost.learner.source import load_tokenizer
    from rlpost.learner.tiny import build_model, byte_tokenizer
    from rlpost.rollout.hf_model import auto_class

    build, path = recipe.model.build, recipe.model.path
    if build is not None:
        return build_model(
            build, byte_tokenizer() if build.tokenizer == "bytes" else load_tokenizer(build.tokenizer), 0
        )
    if str(path).endswith(".gguf"):
        raise ValueError("a GGUF file is counted only when it is loaded")
    trust = recipe.model.trust_remote_code
    return auto_class(str(path), trust).from_config(AutoConfig.from_pretrained(str(path), trust_remote_code=trust))


def _placement_rows(recipe: Recipe, placement: Placement | str, workers: int) -> list[tuple[str, str]]:
    if isinstance(placement, str):
        return [("refused", placement)]
    each = f"with {placement.learner_gpus:g} GPU each" if placement.bundles else "on CPU"
    own = f"with {placement.worker_gpus:g} GPU each" if placement.bundles else "on CPU"
    rows = [("learner", f"{recipe.learner.ranks} rank(s) {each}")]
    if workers:
        rows += [("rollout workers", f"{workers} {own}, {recipe.engine.slots} slots each")]
        rows += [("weights", placement.transport.description)]
    for node, gpus in enumerate(placement.nodes if any(placement.nodes) else ()):
        here = [bundle for bundle in placement.bundles if bundle.node == node]
        free = gpus - sum(bundle.gpus for bundle in here)
        said = [f"{'GPU' if bundle.gpus == 1 else f'{bundle.gpus} GPUs'}: {bundle.who}" for bundle in here]
        rows.append((f"node {node}, GPUs {gpus}", "; ".join([*said, *([f"{free} free"] if free else [])]) or "none"))
    return rows
