"""How a question is put to the model: chat messages or one text to be continued, with worked examples before it.

Left out: tokens (rollout/chat.py), and the templates (catalogue.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rlpost.envs.base import Message, Task
from rlpost.eval.benchmark import Benchmark, EvalError, Row

Style = Literal["chat", "base"]


def ask(benchmark: Benchmark, task: Task, shots: Sequence[Row], style: Style) -> list[Message]:
    """The opening messages of a question. Base prompts are one message; its text is what the model continues.

    Raises:
        EvalError: a template names a column that the row has not.
    """
    if style == "base":
        template = benchmark.base_prompt or benchmark.prompt
        examples = [f"{_fill(benchmark, template, row)}{_answer(benchmark, row, style)}\n\n" for row in shots]
        return [Message(role="user", content="".join([*examples, _fill(benchmark, template, task.data)]))]
    template = benchmark.prompt or benchmark.base_prompt
    messages = [Message(role="system", content=benchmark.system)] if benchmark.system else []
    for row in shots:
        messages.append(Message(role="user", content=_fill(benchmark, template, row)))
        messages.append(Message(role="assistant", content=_answer(benchmark, row, style).strip()))
    return [*messages, Message(role="user", content=_fill(benchmark, template, task.data))]


def _answer(benchmark: Benchmark, row: Row, style: Style) -> str:
    text = _fill(benchmark, benchmark.shot, row)
    return text if style == "chat" or text.startswith((" ", "\n")) or _ends_a_line(benchmark) else f" {text}"


def _ends_a_line(benchmark: Benchmark) -> bool:
    return benchmark.base_prompt.endswith("\n")


def _fill(benchmark: Benchmark, template: str, row: Row) -> str:
    try:
        return template.format_map(row)
    except (KeyError, IndexError, ValueError) as error:
        raise EvalError(
            f"benchmark {benchmark.name}: its prompt cannot be filled: {type(error).__name__}: {error}. The columns: "
            f"{', '.join(row)}; a brace that is none is written twice"
        ) from None
