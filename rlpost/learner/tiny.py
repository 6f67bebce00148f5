"""Small models from scratch: a byte-level tokenizer with a chat template, and a Qwen2 or Llama with random weights.

They make a recipe run without any download. Left out: other architectures (load those with ``model.path``) and any
training of the tokenizer: a token is a byte, so nothing is ever out of vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from rlpost.learner.config import BuildConfig

START, END, PAD, MASK = "<|im_start|>", "<|im_end|>", "<|pad|>", "<|mask|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML. A longer conversation's text always begins with the shorter one's, so token ids are only ever appended."""

MAX_POSITIONS = 1 << 15
"""Longest sequence of a built model; rotary positions cost no weights."""

_ARCHITECTURES = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte (ids 0..255), then ``<|im_start|>``, ``<|im_end|>`` (end of sequence) and ``<|pad|>``.

    Text is put into Unicode's composed form (NFC) first: transformers reads any tokenizer of a Qwen2 folder as a
    ``Qwen2Tokenizer``, which does that and wants a token for unknown words, so this one does the same from the start.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={character: index for index, character in enumerate(alphabet)}, merges=[]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (START, END, PAD)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        unk_token=PAD,  # never produced: every byte has a token
        extra_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def add_mask_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the tokenizer's mask token; it is given one where it has none."""
    if tokenizer.mask_token_id is None:
        tokenizer.add_special_tokens({"mask_token": MASK})
    return int(tokenizer.mask_token_id)


def masked_diffusion(mask_token_id: int, logit_shift: int) -> dict[str, Any]:
    """What a model's configuration says where it is a masked-diffusion model: attention is then bidirectional."""
    return {"is_causal": False, "mask_token_id": mask_token_id, "logit_shift": logit_shift}


def build_model(
    build: BuildConfig, tokenizer: PreTrainedTokenizerBase, seed: int, diffusion: bool = False
) -> PreTrainedModel:
    """An LM in fp32 with random weights, causal or ``diffusion`` (the tokenizer then gets a mask token); its vocabulary
    is the tokenizer's, padded to a multiple of 8.

    The same ``build`` and ``seed`` give the same weights; torch's global random state is left as it was.
    """
    config_class, model_class = _ARCHITECTURES[build.family]
    kind = masked_diffusion(add_mask_token(tokenizer), logit_shift=0) if diffusion else {}
    config = config_class(
        vocab_size=-(-len(tokenizer) // 8) * 8,
        hidden_size=build.hidden,
        num_hidden_layers=build.layers,
        num_attention_heads=build.heads,
        num_key_value_heads=build.kv_heads or build.heads,
        intermediate_size=build.intermediate,
        max_position_embeddings=MAX_POSITIONS,
        initializer_range=build.initializer_range,
        tie_word_embeddings=build.tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
        dtype=torch.float32,
        **kind,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class(config)
