"""From ``model`` in a recipe to a folder: built models, their tokenizer, and bad input in words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlpost.learner.config import BuildConfig, ModelConfig
from rlpost.learner.errors import ModelError
from rlpost.learner.source import load_tokenizer, materialise
from rlpost.learner.tiny import byte_tokenizer
from tests.learner.helpers import TINY, tiny_folder

TALK = [
    {"role": "system", "content": "a\n b"},
    {"role": "user", "content": "hé\U0001f600  x"},
    {"role": "assistant", "content": "ok\n"},
]


@pytest.mark.parametrize("family", ["qwen2", "llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_built_model_is_seeded_and_loads(tmp_path: Path, family: str, tied: bool) -> None:
    folders = [tiny_folder(tmp_path / str(i), seed, family=family, tied=tied) for i, seed in enumerate([1, 1, 2])]
    models = [AutoModelForCausalLM.from_pretrained(folder) for folder in folders]
    weights = [torch.cat([weight.flatten() for weight in model.parameters()]) for model in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert models[0].config.vocab_size == 264  # 259 tokens, padded to a multiple of 8
    assert models[0].config.eos_token_id == load_tokenizer(folders[0]).eos_token_id == 257
    assert (models[0].lm_head.weight is models[0].model.embed_tokens.weight) is tied


def test_building_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    tiny_folder(tmp_path / "m")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_the_saved_tokenizer_is_the_one_in_memory(tmp_path: Path, family: str) -> None:
    saved, ours = load_tokenizer(tiny_folder(tmp_path / "m", family=family)), byte_tokenizer()
    for text in ("", "plain", " two  spaces\n\t", "hé\U0001f600", "1234 don't"):
        ids = ours(text).input_ids
        assert saved(text).input_ids == ids
        assert len(ids) == len(text.encode())
        assert saved.decode(ids) == text
    assert len(saved) == len(ours) == 259
    assert saved.apply_chat_template(TALK, tokenize=False) == ours.apply_chat_template(TALK, tokenize=False)


def test_the_chat_template_only_appends() -> None:
    tokenizer = byte_tokenizer()

    def ids(messages: int, generate: bool) -> list[int]:
        return tokenizer.apply_chat_template(TALK[:messages], add_generation_prompt=generate, return_dict=False)

    assert ids(2, True)[: len(ids(2, False))] == ids(2, False)
    assert ids(3, False)[: len(ids(2, True))] == ids(2, True)
    assert tokenizer.decode(ids(1, True)) == "<|im_start|>system\na\n b<|im_end|>\n<|im_start|>assistant\n"


def test_a_folder_is_used_where_it_lies(model_folder: Path, tmp_path: Path) -> None:
    assert materialise(ModelConfig(path=str(model_folder)), tmp_path / "unused") == model_folder
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize(
    ("path", "message"),
    [("./no/such", "no folder"), ("missing", "no folder"), ("no.gguf", "no file")],
)
def test_a_missing_model_is_named(path: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"model\.path.*{message}"):
        materialise(ModelConfig(path=path), tmp_path)


def test_broken_folders_are_named(model_folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(model_folder, tmp_path / "broken")
    (broken / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match=r"model\.path: the tokenizer in .*broken.* cannot be read"):
        materialise(ModelConfig(path=str(broken)), tmp_path)
    (broken / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no \*\.safetensors"):
        materialise(ModelConfig(path=str(broken)), tmp_path)
    (broken / "config.json").write_text(json.dumps({"model_type": "no-such-thing"}))
    with pytest.raises(ModelError, match=r"config\.json' cannot be read"):
        materialise(ModelConfig(path=str(broken)), tmp_path)
    (broken / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        materialise(ModelConfig(path=str(broken)), tmp_path)


def test_a_tokenizer_without_an_end_is_refused(model_folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(model_folder, tmp_path / "broken")
    config = json.loads((broken / "tokenizer_config.json").read_text())
    (broken / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": None}))
    with pytest.raises(ModelError, match="end-of-sequence"):
        materialise(ModelConfig(path=str(broken)), tmp_path)


def test_configurations_that_contradict_themselves() -> None:
    with pytest.raises(ValueError, match="exactly one of path"):
        ModelConfig()
    with pytest.raises(ValueError, match="exactly one of path"):
        ModelConfig(path="x", build=TINY)
    with pytest.raises(ValueError, match="multiple of 2"):
        BuildConfig(hidden=36, heads=4)
    with pytest.raises(ValueError, match="kv_heads"):
        BuildConfig(heads=4, kv_heads=3)
