"""Where a model comes from: whatever ``model`` in the recipe says becomes a plain Hugging Face folder.

Learner and engines both read that folder, so both see the same weights and the same tokenizer. Left out: the model in
memory (model.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as progress

from rlpost.algorithms.base import ModelKind
from rlpost.learner.adapter_files import is_adapter, merged
from rlpost.learner.config import ModelConfig
from rlpost.learner.errors import ModelError
from rlpost.learner.reading import Reading
from rlpost.learner.tiny import add_mask_token, build_model, byte_tokenizer, masked_diffusion

GENERATION = "generation_config.json"
_WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.py", "*.jinja"]


def materialise(
    config: ModelConfig, folder: Path, seed: int = 0, kind: ModelKind | None = None, convert: bool = False
) -> Path:
    """Make, find or download the model, and check that its configuration and tokenizer can be read.

    Args:
        config: the recipe's ``model`` section.
        folder: where a model that has to be written (``build``, ``.gguf``) goes; it is created.
        seed: seed of random weights.
        kind: what the algorithm trains; None: whatever it is. A built model is of this kind.
        convert: make a masked-diffusion model of a causal one where one is wanted; it must be warm-started then.

    Returns:
        The folder to load from: ``folder``, the given one, or the hub's local copy. Adapters are merged, in fp32, into
        ``folder``.

    Raises:
        ModelError: no such folder or model, a broken tokenizer, a GGUF file that transformers does not read, a model of
            another kind, or a diffusion model without a mask token.
    """
    place = _find(config, folder, seed, kind == "diffusion")
    if convert and kind == "diffusion" and check_kind(place, config.trust_remote_code, None).causal:
        place = _to_diffusion(place, folder, config.trust_remote_code)
    check_kind(place, config.trust_remote_code, kind)
    return place


def _find(config: ModelConfig, folder: Path, seed: int, diffusion: bool) -> Path:
    if config.build is not None:
        name = config.build.tokenizer
        tokenizer = byte_tokenizer() if name == "bytes" else load_tokenizer(name, key="model.build.tokenizer")
        return _write(build_model(config.build, tokenizer, seed, diffusion), tokenizer, folder)
    assert config.path is not None
    place = Path(config.path).expanduser()
    if place.suffix == ".gguf":
        return _from_gguf(place, folder)
    if not place.is_dir():
        place = _from_hub(config.path)
    if is_adapter(place):
        return _write(merged(place, config.trust_remote_code), load_tokenizer(place, config.trust_remote_code), folder)
    _check(place, config.trust_remote_code)
    return place


def check_kind(folder: Path, trust_remote_code: bool, kind: ModelKind | None) -> Reading:
    """How the model in ``folder`` reads, once it is sure that it is a ``kind`` one and, if diffusion, has a mask token.

    Raises:
        ModelError: it is not, or has not.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    reading = Reading.of(config)
    if kind == "diffusion" and reading.causal:
        lacks = "" if getattr(config, "is_causal", True) else " (its config.json names no mask_token_id)"
        raise ModelError(
            f"model: '{folder}' is a causal language model{lacks} and the algorithm trains a masked-diffusion one. "
            "Give model.path one that is, or a warm_start, which makes one of it"
        )
    if kind == "causal" and not reading.causal:
        raise ModelError(
            f"model: '{folder}' is a masked-diffusion model and the algorithm trains a causal one; choose an algorithm "
            "for diffusion models (bgpo, vrpo_ol, diffu_grpo), or another model"
        )
    if reading.mask_token_id is not None:
        _check_mask_token(folder, trust_remote_code, reading.mask_token_id, config)
    return reading


def _check_mask_token(folder: Path, trust_remote_code: bool, mask_token_id: int, config: Any) -> None:
    tokenizer = load_tokenizer(folder, trust_remote_code)
    known = 0 <= mask_token_id < min(len(tokenizer), config.get_text_config().vocab_size)
    if not known or mask_token_id == tokenizer.eos_token_id:
        what = "ends a sequence" if known else f"is not in the tokenizer, which has {len(tokenizer)} tokens"
        raise ModelError(
            f"model: the tokenizer in '{folder}' has no mask token: config.json says mask_token_id {mask_token_id}, "
            f"which {what}"
        )


def _to_diffusion(place: Path, folder: Path, trust_remote_code: bool) -> Path:
    """A causal checkpoint as a masked-diffusion model: a mask token, bidirectional attention, and predictions that
    stay where they were, one position off. It predicts nothing sensible before it is trained as one."""
    tokenizer = load_tokenizer(place, trust_remote_code)
    mask = add_mask_token(tokenizer)
    with quiet():
        model: Any = AutoModelForCausalLM.from_pretrained(
            place, dtype=torch.float32, trust_remote_code=trust_remote_code
        )
    if mask >= model.config.vocab_size:
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=8)
    for key, value in masked_diffusion(mask, logit_shift=1).items():
        setattr(model.config, key, value)
    return _write(model, tokenizer, folder, generation_config(place))


def load_tokenizer(
    folder: Path | str, trust_remote_code: bool = False, key: str = "model.path"
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder.

    Raises:
        ModelError: it cannot be read; the message names the recipe key.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise ModelError(f"{key}: the tokenizer in '{folder}' cannot be read: {_first_line(error)}") from error
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{key}: the tokenizer in '{folder}' has no end-of-sequence token, so no turn would ever end")
    return tokenizer


def _check(place: Path, trust_remote_code: bool) -> None:
    if not (place / "config.json").is_file():
        raise ModelError(f"model.path: the folder '{place}' has no config.json, so it is not a Hugging Face model")
    try:
        AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise ModelError(f"model.path: '{place}/config.json' cannot be read: {_first_line(error)}") from error
    if not any(place.glob("*.safetensors")):
        raise ModelError(f"model.path: the folder '{place}' has no *.safetensors file with weights")
    load_tokenizer(place, trust_remote_code)


def _from_hub(name: str) -> Path:
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(f"model.path: there is no folder '{name}' (and it is not the name of a model on the hub)")
    try:
        return Path(snapshot_download(name, allow_patterns=_WANTED))
    except Exception as error:
        raise ModelError(
            f"model.path: there is no folder '{name}', and the hub did not give a model of that name: "
            f"{_first_line(error)}"
        ) from error


def _from_gguf(place: Path, folder: Path) -> Path:
    """Unpack a GGUF file into fp32 weights and a tokenizer."""
    if not place.is_file():
        raise ModelError(f"model.path: there is no file '{place}'")
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(place.parent, gguf_file=place.name)
            model: Any = AutoModelForCausalLM.from_pretrained(place.parent, gguf_file=place.name, dtype=torch.float32)
    except ImportError as error:
        raise ModelError(f"model.path: '{place}' needs the package gguf: pip install 'rlpost[gguf]'") from error
    except Exception as error:
        raise ModelError(f"model.path: transformers cannot read '{place}': {_first_line(error)}") from error
    model.hf_quantizer = None  # the weights are plain fp32 now; without this, saving refuses or writes a wrong config
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return _write(model, tokenizer, folder)


def _write(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, generation: bytes | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_model(model, folder, generation)
    with quiet():
        tokenizer.save_pretrained(folder)
    return folder


def write_model(
    model: Any, folder: Path, generation: bytes | None = None, weights: Mapping[str, Tensor] | None = None
) -> None:
    """Write configuration and weights (``weights`` where given, by their names in memory).

    ``generation`` is written as ``generation_config.json``, as it came: transformers reads files that it then refuses
    to write (sampling keys without ``do_sample``), which must not cost a run its result.
    """
    with quiet(), _default_generation(model, generation is not None):
        model.save_pretrained(folder, state_dict=weights)
    if generation is not None:
        (folder / GENERATION).write_bytes(generation)


def generation_config(folder: Path | str) -> bytes | None:
    """The model folder's ``generation_config.json``, as it is; None where it has none."""
    file = Path(folder) / GENERATION
    return file.read_bytes() if file.is_file() else None


@contextmanager
def _default_generation(model: Any, replaced: bool) -> Iterator[None]:
    own = getattr(model, "generation_config", None)
    if replaced and own is not None:
        model.generation_config = type(own)()
    try:
        yield
    finally:
        if replaced and own is not None:
            model.generation_config = own


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' own progress bars off the user's terminal, where rlpost shows its own."""
    shown = progress.is_progress_bar_enabled()
    progress.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            progress.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
