"""Tokenizers for tests, built in place: bytes as tokens, ChatML or any other template on top.

Left out: vocabularies with merges; a byte vocabulary splits every character outside ASCII, which is the hard case.
"""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer(chat_template: str | None = CHATML, **special: Any) -> PreTrainedTokenizerFast:
    """256 byte tokens, then the special ones: eos and turn end ``<|im_end|>``, ``<|pad|>``, ``<|im_start|>``."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    options: dict[str, Any] = {
        "eos_token": "<|im_end|>",
        "pad_token": "<|pad|>",
        "additional_special_tokens": ["<|im_start|>"],
    }
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **(options | special))
    tokenizer.chat_template = chat_template
    return tokenizer
