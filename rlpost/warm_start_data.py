"""Conversations for the warm start, as tokens: turn by turn, as an episode's are, with only the assistant's trained on.

So the ids are those that a rollout of the same words would have, its stop tokens included. Left out: packing (the
trainer pads) and tool calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlpost.envs.base import Message
from rlpost.envs.load import load_rows
from rlpost.rollout.chat import ChatFormat
from rlpost.warm_start import WarmStartJob

CHECKS = 128
IGNORED = -100


class DataError(ValueError):
    """The conversations cannot be used; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation of T tokens.

    Attributes:
        input_ids: T ids.
        labels: T ids, IGNORED where the assistant did not speak.
        last_turn: first position of the last assistant turn.
    """

    input_ids: list[int]
    labels: list[int]
    last_turn: int


def load(job: WarmStartJob, chat: ChatFormat) -> tuple[list[Conversation], list[Conversation]]:
    """Conversations to train on, and held-out ones for the check (none where the recipe has no ``stop_accuracy``).

    Raises:
        DataError: a broken conversation (named), or none that can be used.
        EnvError: the environment or the file gives none.
    """
    if job.data is None:
        train = _of_env(job, chat, "train", job.config.examples)
        checks = _of_env(job, chat, "check", CHECKS) if job.config.stop_accuracy else []
    else:
        train, checks = _of_file(job, chat), []
        if job.config.stop_accuracy:
            held_out = min(CHECKS, max(1, len(train) // 10))
            train, checks = train[:-held_out], train[-held_out:]
    longest = job.rollout.max_context
    train = [_cut(conversation, longest) for conversation in train]
    train = [conversation for conversation in train if any(label != IGNORED for label in conversation.labels)]
    checks = [conversation for conversation in checks if len(conversation.input_ids) <= longest]
    if not train or (job.config.stop_accuracy and not checks):
        what = "check" if train else "train on"
        raise DataError(f"no conversation to {what} fits into rollout.max_context ({longest} tokens)")
    return train, checks


def tokenize(messages: Sequence[Message], chat: ChatFormat) -> Conversation:
    """Build the ids of a conversation turn by turn, as an episode does.

    Raises:
        DataError: it does not open with a message to the assistant, alternate from its first turn on, and end with
            the assistant.
    """
    first = check_turns(messages)
    ids = chat.opening(messages[:first])
    labels = [IGNORED] * len(ids)
    start = len(ids)
    for message in messages[first:]:
        if message["role"] == "assistant":
            start = len(ids)
            said = chat.turn(message["content"])
            labels += said
        else:
            said = chat.continuation(message["content"], ids[-1], message["role"])
            labels += [IGNORED] * len(said)
        ids += said
    return Conversation(ids, labels, start)


def check_turns(messages: Sequence[Message]) -> int:
    """Where the assistant first speaks; errors as for ``tokenize``."""
    turns = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    if not turns or turns[0] == 0 or turns[-1] != len(messages) - 1:
        raise DataError("a conversation must open with a message to the assistant and end with the assistant's")
    if turns != list(range(turns[0], len(messages), 2)):
        raise DataError("from the assistant's first message on, its messages and others' must take turns")
    return turns[0]


def _of_env(job: WarmStartJob, chat: ChatFormat, split: str, count: int) -> list[Conversation]:
    env = job.env.load()
    found = [
        tokenize(demonstration.messages, chat)
        for demonstration in env.demonstrations(split, job.seed, count, **job.env_options)
    ]
    if not found:
        raise DataError(f"env.name ({job.env.target}.demonstrations('{split}')) gives no conversations")
    return found


def _of_file(job: WarmStartJob, chat: ChatFormat) -> list[Conversation]:
    assert job.data is not None
    found = []
    for where, row in load_rows(job.data):
        try:
            found.append(tokenize(_messages(row), chat))
        except ValueError as error:
            raise DataError(f"{where}: {error}") from error
    if job.config.stop_accuracy and len(found) < 2:
        raise DataError(
            f"{job.data} has one conversation only; stop_accuracy holds one out, and none is left to train on"
        )
    return found


def _messages(row: dict[str, Any]) -> list[Message]:
    """The column ``messages``, checked."""
    if "messages" not in row:
        raise DataError(f"no column 'messages'; there are: {', '.join(row) or 'none'}")
    messages = row["messages"]
    if not isinstance(messages, list):
        raise DataError(f"'messages' must be a list of role and content, it is {type(messages).__name__}")
    for number, message in enumerate(messages, start=1):
        parts = [message.get(key) for key in ("role", "content")] if isinstance(message, dict) else [None]
        if not all(isinstance(part, str) for part in parts):
            raise DataError(f"message {number} must have a role and a content, both text")
    return messages


def _cut(conversation: Conversation, longest: int) -> Conversation:
    return Conversation(conversation.input_ids[:longest], conversation.labels[:longest], conversation.last_turn)
