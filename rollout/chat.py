"""Chat formats: messages and observations in, token ids out, and a turn's token ids back to text for the environment.

What the policy sampled is never tokenized again: after a turn only the ids that follow it are appended. A chat
template says what follows an assistant turn, whatever the turn was; it is asked once, with a marker in place of the
turn, and what it renders after the marker is kept. So templates that rewrite earlier turns (thinking removed) or add
a default system prompt need no care. Left out: tools, images, and any table of model families.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from rlpost.envs.base import Message
from rlpost.rollout.engine import END_STRIDE
from rlpost.rollout.truncate import truncate

TURN_MARK = "TURN7f3a91MARK"
TEXT_MARK = "TEXT5c08d2MARK"
OPENINGS_KEPT = 256


class ChatError(ValueError):
    """The tokenizer cannot be loaded, or has no usable chat template; the message says what to do."""


class StopCheck:
    """Whether sampled ids have come to one of the texts ``stop`` within their last ``END_STRIDE`` tokens."""

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        self._tokenizer, self._stop = tokenizer, stop
        self._reach = END_STRIDE + max(len(text.encode()) for text in stop)  # a token is at least a byte

    def __call__(self, token_ids: Sequence[int]) -> bool:
        tail = str(self._tokenizer.decode(list(token_ids[-self._reach :]), clean_up_tokenization_spaces=False))
        return any(text in tail for text in self._stop)


class ChatFormat:
    """What both formats share; a subclass says how messages become one text.

    Args:
        tokenizer: a Hugging Face tokenizer.
        observation_tokens: longer observations are cut to this many tokens.

    Attributes:
        stop_token_ids: ids that end a turn, sorted.
    """

    def __init__(self, tokenizer: Any, observation_tokens: int = 1024) -> None:
        self._tokenizer = tokenizer
        self._observation_tokens = observation_tokens
        self._openings: dict[tuple[tuple[str, str], ...], list[int]] = {}
        self._checks: dict[tuple[str, ...], StopCheck] = {}
        self._backend = tokenizer.backend_tokenizer if tokenizer.is_fast else None
        if self._backend is not None:  # limits that a tokenizer file brings along
            self._backend.no_truncation()
            self._backend.no_padding()
        special = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        special |= dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        self._special_ids = frozenset(special.values())
        self._special_text = re.compile("|".join(re.escape(text) for text in special) or r"(?!)")
        self.stop_token_ids: list[int] = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]

    def opening(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the opening messages, ready for the first turn to be sampled after them. Those asked for lately
        are kept: all episodes of a task begin alike.

        Raises:
            ChatError: the chat template refuses these messages.
        """
        key = tuple((message["role"], message["content"]) for message in messages)
        if key not in self._openings:
            if len(self._openings) >= OPENINGS_KEPT:
                del self._openings[next(iter(self._openings))]
            self._openings[key] = self._open(messages)
        return list(self._openings[key])

    def _open(self, messages: Sequence[Message]) -> list[int]:
        raise NotImplementedError

    def continuation(self, observation: str, last_token: int, role: str = "user", reminder: str = "") -> list[int]:
        """Token ids to append after a turn: its closing where it was not sampled, the observation as a new message
        (cut to the observation budget), and the opening of the next turn.

        Args:
            observation: the environment's answer.
            last_token: the last id that the policy sampled in the turn.
            role: role of the new message.
            reminder: follows the observation in the same message, and is not cut.

        Raises:
            ChatError: the chat template refuses this role.
        """
        raise NotImplementedError

    def turn(self, text: str) -> list[int]:
        """A scripted turn as if it had been sampled: the text's ids and the token that ends a turn."""
        return [*self._encode_plain(text), self._end]

    @property
    def _end(self) -> int:
        return self.stop_token_ids[0]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a turn, without the stop token that ended it. Other special tokens stay visible; bytes that are
        not UTF-8 become replacement marks."""
        ids = [int(token) for token in token_ids]
        if ids and ids[-1] in self.stop_token_ids:
            ids.pop()
        return self._decode(ids)

    def stop_check(self, stop: Sequence[str]) -> Callable[[Sequence[int]], bool] | None:
        """Whether sampled ids have come to one of the ``stop`` texts within their last ``END_STRIDE`` tokens, as an
        engine's request asks; None where there is no such text."""
        if not stop:
            return None
        if tuple(stop) not in self._checks:
            # A copy of the tokenizer: it is asked on another thread, or in another process, than this format.
            self._checks[tuple(stop)] = StopCheck(copy.deepcopy(self._tokenizer), tuple(stop))
        return self._checks[tuple(stop)]

    def shorten(self, observation: str) -> str:
        """The observation, cut to the budget."""
        return truncate(observation, self._observation_tokens, self._encode_plain, self._decode)

    def _decode(self, ids: list[int]) -> str:
        text = self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    def _encode(self, text: str, add_special_tokens: bool = False, split_special_tokens: bool = False) -> list[int]:
        if self._backend is None:
            ids: list[int] = self._tokenizer(
                text, add_special_tokens=add_special_tokens, split_special_tokens=split_special_tokens
            )["input_ids"]
            return ids
        self._backend.encode_special_tokens = split_special_tokens
        return list(self._backend.encode(text, add_special_tokens=add_special_tokens).ids)  # a third of the call above

    def _encode_plain(self, text: str) -> list[int]:
        """The world's words are never control tokens, even where they spell one."""
        return self._encode(text, split_special_tokens=self._special_text.search(text) is not None)

    def _encode_around(self, before: str, text: str, after: str) -> list[int]:
        """As one text, so that tokens form across the seams exactly as the whole conversation's would."""
        if not self._special_text.search(text):
            return self._encode(before + text + after)
        return self._encode(before) + self._encode_plain(text) + self._encode(after)


class TemplateFormat(ChatFormat):
    """The tokenizer's own chat template.

    Raises:
        ChatError: it has none, or the template renders no multi-turn conversation, or nothing could end a turn.
    """

    def __init__(self, tokenizer: Any, observation_tokens: int = 1024) -> None:
        super().__init__(tokenizer, observation_tokens)
        if not getattr(tokenizer, "chat_template", None):
            raise ChatError(
                "the model's tokenizer has no chat template. Use an instruction-tuned model, add a "
                "chat_template.jinja to the model folder, or set rollout.chat: plain"
            )
        self._follows: dict[str, tuple[str, str, bool]] = {}
        before, _, _ = self._what_follows("user")
        ids = self._encode(before)
        self._closing = self._closing_length(ids)
        self._turn_end = ids[self._closing - 1] if self._closing else None
        if self._turn_end is not None:
            self.stop_token_ids = sorted({*self.stop_token_ids, self._turn_end})
        if not self.stop_token_ids:
            raise ChatError(
                "nothing can end a turn: the tokenizer has no eos_token, and its chat template puts no special token "
                "after an assistant message. Set eos_token in the model folder's tokenizer_config.json"
            )

    @property
    def _end(self) -> int:
        return self.stop_token_ids[0] if self._turn_end is None else self._turn_end

    def _open(self, messages: Sequence[Message]) -> list[int]:
        return self._encode(self._render(messages))

    def continuation(self, observation: str, last_token: int, role: str = "user", reminder: str = "") -> list[int]:
        """See ChatFormat."""
        before, after, strips = self._what_follows(role)
        text = self.shorten(observation.strip() if strips else observation) + reminder
        ids = self._encode_around(before, text, after)
        return ids[self._closing :] if last_token == self._turn_end else ids

    def _what_follows(self, role: str) -> tuple[str, str, bool]:
        """What the template renders between a finished assistant turn and the next message's text, what it renders
        after that text, and whether it strips the text's white space."""
        if role not in self._follows:
            rendered = self._render(
                [
                    {"role": "user", "content": "Hello."},
                    {"role": "assistant", "content": TURN_MARK},
                    {"role": role, "content": f"\t{TEXT_MARK}\t"},
                ]
            )
            if TURN_MARK not in rendered or TEXT_MARK not in rendered.rpartition(TURN_MARK)[2]:
                raise ChatError(f"the chat template does not show a '{role}' message after an assistant message")
            before, _, after = rendered.rpartition(TURN_MARK)[2].partition(TEXT_MARK)
            strips = not (before.endswith("\t") and after.startswith("\t"))
            self._follows[role] = (before.removesuffix("\t"), after.removeprefix("\t"), strips)
        return self._follows[role]

    def _closing_length(self, ids: list[int]) -> int:
        """Length of the closing of an assistant turn at the start of ``ids``: up to its first special token, with only
        white space before it; 0 where the template closes turns in plain words."""
        for position, token in enumerate(ids):
            if token in self._special_ids:
                return position + 1
            if self._decode([token]).strip():
                break
        return 0

    def _render(self, messages: Sequence[Message]) -> str:
        try:
            text = self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        except Exception as error:
            roles = ", ".join(message["role"] for message in messages)
            raise ChatError(f"the chat template refuses messages with roles {roles}: {error}") from error
        return str(text)


class PlainFormat(ChatFormat):
    """For base models: every message, turn and observation is followed by ``separator``, and roles are not shown.

    Raises:
        ChatError: the tokenizer has no eos_token, so nothing could end a turn.
    """

    def __init__(self, tokenizer: Any, observation_tokens: int = 1024, separator: str = "\n") -> None:
        super().__init__(tokenizer, observation_tokens)
        self._separator = separator
        if not self.stop_token_ids:
            raise ChatError(
                "the tokenizer has no eos_token, so nothing can end a turn; set it in tokenizer_config.json"
            )

    def _open(self, messages: Sequence[Message]) -> list[int]:
        return self._encode("".join(m["content"] + self._separator for m in messages), add_special_tokens=True)

    def continuation(self, observation: str, last_token: int, role: str = "user", reminder: str = "") -> list[int]:
        """See ChatFormat."""
        return self._encode_around(self._separator, self.shorten(observation) + reminder, self._separator)


def cut(text: str, stop: Sequence[str]) -> str:
    """The text up to the first of the ``stop`` texts in it."""
    return text[: min((place for place in map(text.find, stop) if place >= 0), default=len(text))]


def load_format(
    model_folder: str | Path,
    chat: Literal["template", "plain"] = "template",
    observation_tokens: int = 1024,
    separator: str = "\n",
    trust_remote_code: bool = False,
) -> ChatFormat:
    """The chat format of the model in ``model_folder`` (or of that hub name).

    Raises:
        ChatError: the tokenizer cannot be loaded, or does not serve.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(model_folder), trust_remote_code=trust_remote_code)
    except Exception as error:
        raise ChatError(
            f"model.path: cannot load a tokenizer from {model_folder}: {type(error).__name__}: {error}"
        ) from error
    if chat == "plain":
        return PlainFormat(tokenizer, observation_tokens, separator)
    return TemplateFormat(tokenizer, observation_tokens)
