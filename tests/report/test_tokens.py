"""Display strings of real tokenizers: joined they are the text, whatever the bytes."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rlpost.report import TokenDisplay


def byte_level() -> PreTrainedTokenizerFast:
    """One token a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_a_character_of_several_tokens_is_shown_at_its_first() -> None:
    tokenizer = byte_level()
    ids = tokenizer("aé🦊.")["input_ids"]
    assert len(ids) == 8
    assert TokenDisplay(tokenizer)(ids) == ["a", "é", "", "🦊", "", "", "", "."]


def test_bytes_that_are_no_text_stay_one_token_each() -> None:
    tokenizer = byte_level()
    a, lead, fox = tokenizer("a")["input_ids"][0], tokenizer("é")["input_ids"][0], tokenizer("🦊")["input_ids"]
    shown = TokenDisplay(tokenizer)([lead, a, *fox, fox[0], fox[1]])
    assert shown == ["\N{REPLACEMENT CHARACTER}", "a", "🦊", "", "", "", *["\N{REPLACEMENT CHARACTER}"] * 2]


def test_the_space_that_sentencepiece_drops_is_put_back() -> None:
    vocabulary = [("<unk>", 0.0), ("▁pay", -1.0), ("▁now", -1.0), ("!", -1.0)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    assert wrapped.decode([2]) == "now"
    assert TokenDisplay(wrapped)([1, 2, 3]) == [" pay", " now", "!"]
