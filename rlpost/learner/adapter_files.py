"""Adapters on disk, as PEFT writes them: ``adapter_model.safetensors`` and ``adapter_config.json``.

Such a folder loads with ``PeftModel.from_pretrained``, with vLLM and as ``model.path`` of a recipe. Left out: the
optimizer's state beside it (checkpoint.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import LoraConfig as PeftConfig
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from rlpost.learner.config import LoraConfig
from rlpost.learner.errors import ModelError
from rlpost.rollout.transport.object_store import as_array
from rlpost.rollout.weight_update import Adapters, WeightUpdate

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def is_adapter(folder: Path) -> bool:
    """Whether a model folder holds adapters for a base that lies elsewhere."""
    return (folder / CONFIG).is_file()


def write_adapters(factors: Mapping[str, Tensor], config: LoraConfig, base: Path, folder: Path) -> None:
    """Write fp32 factors as ``PolicyModel.adapter_weights`` gives them, by their PEFT names, the scale taken out of B
    again; ``base`` is the folder they go on."""
    scale = config.alpha / config.rank
    plain = {name: factor / scale if ".lora_B." in name else factor for name, factor in factors.items()}
    save_file({name: factor.contiguous() for name, factor in plain.items()}, folder / WEIGHTS, {"format": "pt"})
    PeftConfig(
        base_model_name_or_path=str(base.resolve()),
        task_type="CAUSAL_LM",
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=0.0,
        target_modules=list(config.targets),
        inference_mode=True,
    ).save_pretrained(str(folder))


def base_of(folder: Path) -> Path:
    """The folder of the model that adapters go on: the one named in their configuration, else the run's own model, so
    that a run folder may be moved.

    Raises:
        ModelError: neither is there.
    """
    named = Path(json.loads((folder / CONFIG).read_text())["base_model_name_or_path"])
    run = folder.resolve().parent.parent
    for place in (named, run / "warm_model", run / "model"):
        if place.is_dir():
            return place
    raise ModelError(f"'{folder}' holds adapters for the model in '{named}', and there is no such folder")


def served(folder: Path, dtype: torch.dtype) -> tuple[Adapters, WeightUpdate]:
    """What an engine that serves these adapters unmerged is started for, and the update it is then sent, as version 0
    through the object store."""
    about = json.loads((folder / CONFIG).read_text())
    rank, scale = int(about["r"]), about["lora_alpha"] / about["r"]
    update = WeightUpdate(0, rank=rank)
    for name, factor in load_file(folder / WEIGHTS).items():
        given = (factor * scale if ".lora_B." in name else factor).to(dtype)
        update.names.append(name)
        update.dtypes.append(str(dtype).removeprefix("torch."))
        update.shapes.append(tuple(given.shape))
        update.payload.append(as_array(given))
    return Adapters(rank, tuple(about["target_modules"])), update


def merged(folder: Path, trust_remote_code: bool = False) -> PreTrainedModel:
    """The base with its adapters added, computed and kept in fp32."""
    base = AutoModelForCausalLM.from_pretrained(
        base_of(folder), dtype=torch.float32, trust_remote_code=trust_remote_code
    )
    model: PreTrainedModel = PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
    return model
