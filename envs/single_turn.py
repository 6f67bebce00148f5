"""One prompt, one answer, one reward: the environment of mathematics, code and preference tasks.

Tasks come from the recipe's ``data`` files. Left out: several answers to one prompt (that is what groups are for) and
feedback in between (write an Env with a ``step`` of its own).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

from rlpost.envs.base import EnvError, Message, Score, Task
from rlpost.envs.one_answer import OneAnswer
from rlpost.reward.functions import RewardFunction, load_reward
from rlpost.reward.plugins import Plugin
from rlpost.reward.score import RewardError


class SingleTurn(OneAnswer):
    """A task's prompt, answered once and judged by a reward function.

    Args:
        task: its ``data`` are the columns of one row.
        seed: not used.
        reward: the reward function: a built-in's name, ``module:function``, or ``file.py:function``; or
            ``{function: name, ...}`` with keyword arguments of it.
        prompt: the column with the prompt: a string, or a list of chat messages.
        system_prompt: a system message put first, where the prompt brings none.
        template: what the user message says, with columns in braces, e.g. ``"Problem: {question}"``; then ``prompt``
            is not used.

    Raises:
        EnvError: a column that ``prompt`` or ``template`` names is missing, or is neither text nor messages.
        RewardError: the reward function cannot be loaded, raised, or returned no finite number.
    """

    blocking: ClassVar[frozenset[str]] = frozenset({"score"})

    def __init__(
        self,
        task: Task,
        seed: int,
        reward: str | Plugin | Mapping[str, Any],
        prompt: str = "prompt",
        system_prompt: str | None = None,
        template: str | None = None,
    ) -> None:
        super().__init__(task, seed)
        self._reward = _loaded(reward)
        self._prompt = prompt
        self._system_prompt = system_prompt
        self._template = template

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """The reward function must load."""
        try:
            load_reward(options["reward"])
        except RewardError as error:
            raise EnvError(str(error), "reward") from error

    @classmethod
    def check_tasks(cls, tasks: Sequence[Task], **options: Any) -> None:
        """The first task's prompt can be written, and the reward function can judge by every row.

        Raises:
            EnvError: names the column, or the row and what is wrong with it.
        """
        try:
            for task in tasks[:1]:
                cls(task, 0, **options).start()
            _loaded(options["reward"]).check([task.data for task in tasks])
        except RewardError as error:
            raise EnvError(f"env.options.reward: {error}") from error

    def start(self) -> Sequence[Message]:
        """The system message, where there is one, and the prompt."""
        asked = self._asked()
        messages = [Message(role="user", content=asked)] if isinstance(asked, str) else list(asked)
        if self._system_prompt is not None and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": self._system_prompt})
        return messages

    def score(self) -> Score:
        """What the reward function says of the answer. The columns it is given are the row's, and ``prompt``: what was
        asked, unless ``env.options.prompt`` names another column beside one of that name."""
        asked = {"prompt": self._asked()}
        columns = {**asked, **self.task.data} if self._template is None else {**self.task.data, **asked}
        return self._reward(self.answer, columns, self.task.id)

    def _asked(self) -> str | list[Message]:
        row = self.task.data
        if self._template is not None:
            try:
                return self._template.format_map(row)
            except (KeyError, IndexError, ValueError) as error:
                raise EnvError(
                    f"env.options.template cannot be filled for task '{self.task.id}': {type(error).__name__}: "
                    f"{error}. Its columns: {', '.join(row)}; a brace that is none is written twice"
                ) from None
        if self._prompt not in row:
            raise EnvError(
                f"task '{self.task.id}' has no column '{self._prompt}'; it has: {', '.join(row)}. Name the one with "
                "the prompt in env.options.prompt, or write env.options.template"
            )
        content = row[self._prompt]
        if isinstance(content, str):
            return content
        if isinstance(content, list) and content and all(_is_message(message) for message in content):
            return [Message(role=message["role"], content=message["content"]) for message in content]
        raise EnvError(
            f"column '{self._prompt}' of task '{self.task.id}' is neither text nor a list of "
            f"{{'role': ..., 'content': ...}}: {str(content)[:80]}"
        )


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


def _loaded(reward: str | Plugin | Mapping[str, Any]) -> RewardFunction:
    return _loaded_options(json.dumps(reward)) if isinstance(reward, Mapping) else _loaded_name(reward)


@lru_cache(maxsize=16)
def _loaded_name(reward: str | Plugin) -> RewardFunction:
    return load_reward(reward)


@lru_cache(maxsize=16)
def _loaded_options(reward: str) -> RewardFunction:
    return load_reward(json.loads(reward))
