"""Which layers of a model adapters can go to, so far as it is known without loading weights.

Left out: putting adapters on them (lora.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rlpost.learner.config import BuildConfig, LoraConfig, ModelConfig

BUILT = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Linear layers of a model built from scratch."""


def missing_targets(model: ModelConfig, lora: LoraConfig) -> str:
    """What is wrong with ``learner.lora.targets``; empty where nothing is, or the model is not on this machine."""
    if isinstance(model.build, BuildConfig):
        return without_a_layer(lora.targets, BUILT)
    folder = _folder(str(model.path))
    if not (folder / "config.json").is_file() or not without_a_layer(lora.targets, _stored_names(folder)):
        return ""
    try:  # a model's layers may be called otherwise than the weights in its files
        return without_a_layer(lora.targets, _layers(folder, model.trust_remote_code))
    except Exception:  # what is wrong with the model is said when it is loaded
        return ""


def _folder(path: str) -> Path:
    """A model's folder; of a hub name the one it was downloaded to, which may not exist."""
    if Path(path).exists():
        return Path(path)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(path, "config.json")
    except HFValidationError:  # no hub name either
        found = None
    return Path(found).parent if isinstance(found, str) else Path(path)


def without_a_layer(targets: Sequence[str], layers: Iterable[str]) -> str:
    """Says which targets no layer's name ends with, and what layers there are; empty where each has one."""
    names = set(layers)
    missing = [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in names)]
    if not missing:
        return ""
    ends = {name.rpartition(".")[2] for name in names}
    which = ", ".join(f"'{target}'" for target in missing)
    return f"the model has no linear layer called {which}; name some of those it has: {', '.join(sorted(ends))}"


def _stored_names(folder: Path) -> set[str]:
    """Names of the modules that have a weight in the folder's safetensors files; their headers alone are read."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = json.loads(index.read_text())["weight_map"]
    else:
        names = [name for file in folder.glob("*.safetensors") for name in _header(file)]
    return {name.removesuffix(".weight") for name in names}


def _header(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        header: dict[str, Any] = json.loads(opened.read(min(size, 100_000_000)))
    return header


def _layers(folder: Path, trust_remote_code: bool) -> set[str]:
    """Linear layers of the model, built without memory for its weights."""
    import torch
    from transformers import AutoConfig

    from rlpost.learner.lora import linear_layers
    from rlpost.rollout.hf_model import auto_class

    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        model = auto_class(str(folder), trust_remote_code).from_config(config)
    return set(linear_layers(model))
