"""A tiny masked-diffusion model that brings its own Python code, as LLaDA and Dream on the hub do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from transformers.dynamic_module_utils import get_class_from_dynamic_module

MASK = 259
OWN_CODE = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput


class TinyConfig(PretrainedConfig):
    model_type = "{model_type}"

    def __init__(self, vocab_size=264, hidden_size=16, mask_token_id=259, **kwargs):
        self.vocab_size, self.hidden_size, self.mask_token_id = vocab_size, hidden_size, mask_token_id
        super().__init__(**kwargs)


class TinyModel(PreTrainedModel):
    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.mix = nn.MultiheadAttention(config.hidden_size, 2, batch_first=True)
        self.head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def _init_weights(self, module):
        torch.manual_seed(0)
        for weight in module.parameters(recurse=False):
            nn.init.normal_(weight, std=0.5)

    def forward(self, input_ids, attention_mask=None, **kwargs):
        hidden = self.embed(input_ids)
        return MaskedLMOutput(logits=self.head(hidden + self.mix(hidden, hidden, hidden)[0]))
"""


def own_code_folder(folder: Path, model_type: str, causal_name: bool, source: Path) -> Path:
    """A model whose Python code comes with it, the way LLaDA's and (without a causal class) Dream's do."""
    folder.mkdir()
    (folder / "tiny_code.py").write_text(OWN_CODE.replace("{model_type}", model_type))
    for file in source.glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "chat_template.jinja").write_bytes((source / "chat_template.jinja").read_bytes())
    names = {"AutoConfig": "tiny_code.TinyConfig", "AutoModel": "tiny_code.TinyModel"}
    names |= {"AutoModelForCausalLM": "tiny_code.TinyModel"} if causal_name else {}
    config = {"model_type": model_type, "auto_map": names, "mask_token_id": MASK, "vocab_size": 264, "hidden_size": 16}
    (folder / "config.json").write_text(json.dumps(config))
    model_class: Any = get_class_from_dynamic_module("tiny_code.TinyModel", str(folder))
    config_class: Any = get_class_from_dynamic_module("tiny_code.TinyConfig", str(folder))
    model = model_class(config_class(**{key: config[key] for key in ("mask_token_id", "vocab_size", "hidden_size")}))
    save_file(dict(model.state_dict()), folder / "model.safetensors", metadata={"format": "pt"})
    return folder
