"""One row of a data file as a conversation: chat columns of two kinds, or prompt and response by their usual names.

Left out: files (envs/load.py) and tokens (data.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlpost.envs.base import Message
from rlpost.warm_start_data import DataError, check_turns

CHATS = ("messages", "conversations", "items")
PROMPTS = ("prompt", "instruction", "question", "problem", "query", "text")
RESPONSES = ("response", "completion", "output", "answer", "solution")
ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant"}
"""What other data sets call the roles."""


def conversation(row: Mapping[str, Any]) -> list[Message]:
    """The row's messages: with the assistant's, which are learned, or a single prompt, which is then learned itself.

    Raises:
        DataError: no column that is known, an empty text, or messages that are none; the message says which.
    """
    for column in CHATS:
        if row.get(column) is not None:
            messages = _messages(row[column], column)
            check_turns(messages)
            return messages
    prompt = _first(row, PROMPTS)
    if prompt is None:
        known = ", ".join((*CHATS, *PROMPTS))
        raise DataError(f"none of the columns {known}; there are: {', '.join(row) or 'none'}")
    messages = _spoken(row[prompt], prompt, "user")
    if isinstance(row.get("input"), str) and row["input"].strip():
        messages[-1]["content"] += "\n" + row["input"]
    response = _first(row, RESPONSES)
    if response is not None:
        messages += _spoken(row[response], response, "assistant")
        check_turns(messages)
    return messages


def _first(row: Mapping[str, Any], columns: tuple[str, ...]) -> str | None:
    return next((column for column in columns if row.get(column) is not None), None)


def _spoken(value: Any, column: str, role: str) -> list[Message]:
    """A text in this role, or messages of their own."""
    if isinstance(value, list):
        return _messages(value, column)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    return [{"role": role, "content": _text(value, column)}]


def _messages(value: Any, column: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise DataError(f"'{column}' must be a list of messages, it is {value!r:.60}")
    found: list[Message] = []
    for number, message in enumerate(value, start=1):
        if not isinstance(message, Mapping):
            raise DataError(f"message {number} of '{column}' is no object")
        role = message.get("role", message.get("from"))
        if not isinstance(role, str):
            raise DataError(f"message {number} of '{column}' has neither 'role' nor 'from'")
        content = message.get("content", message.get("value"))
        found.append({"role": ROLES.get(role, role), "content": _text(content, f"message {number} of {column}")})
    return found


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"'{where}' must be a text that is not empty, it is {value!r:.60}")
    return value
