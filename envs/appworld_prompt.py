"""What the solver is told: our own words without an example, or a template of the user's; and what is counted in code.

A template is Jinja; it sees ``instruction``, ``supervisor`` (``first_name``, ``last_name``, ``email``,
``phone_number``) and ``datetime``, and, under the names that AppWorld's own prompt files use, ``input_str`` and
``main_user``. A line that is only ``SYSTEM:``, ``USER:`` or ``ASSISTANT:`` begins a message of that role. Left out:
AppWorld's prompts, which nobody may redistribute, and the code in a turn (code_blocks.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rlpost.envs.base import EnvError, Message
from rlpost.envs.code_blocks import code_blocks

__all__ = ["REMINDER", "code_blocks", "gives_up", "joined", "look_ups", "opening", "turn"]

SYSTEM = """You do everyday tasks for your supervisor by writing Python that calls the APIs of their apps.

In each turn, first say in a sentence or two what you will do next, then write one block of code:
```python
...
```
It runs in a Python shell that keeps its variables, and you are then shown what it printed (only what is printed).

Find APIs with apis.api_docs.show_app_descriptions(), apis.api_docs.show_api_descriptions(app_name=...) and
apis.api_docs.show_api_doc(app_name=..., api_name=...); look at an API's doc before you first call it. All arguments are
keyword arguments. Passwords are in apis.supervisor.show_account_passwords(); most APIs want the access_token that the
app's login returns. Lists come in pages: go on with page_index until a page is empty. Never guess what you can look up,
change nothing that the task does not ask for, and decide everything yourself: nobody will answer questions.

When the task is done call apis.supervisor.complete_task(), with answer=... if and only if something was asked. Give up
with apis.supervisor.complete_task(status="fail") only when it cannot be done."""
USER = (
    "My name is {first_name} {last_name}, my email is {email}, my phone number is {phone_number}. It is {now}."
    "\n\n{task}"
)

REMINDER = "\n\nRemember, the task is: {}"
"""What follows every observation where the recipe asks for it."""
_ROLE = re.compile(r"^(SYSTEM|USER|ASSISTANT):[ \t]*$", re.MULTILINE)
_LOOK_UP = re.compile(r"\bapis\.api_docs\.\w+\(")
_GAVE_UP = re.compile(r"\bcomplete_task\([^)]*status\s*=\s*[\"']fail")


def opening(about: Mapping[str, Any], template: str | None = None) -> list[Message]:
    """The opening messages of an episode; ``about`` as a world describes itself.

    Raises:
        EnvError: the template cannot be rendered, or gives no message for the solver to answer.
    """
    if template is not None:
        return _rendered(template, about)
    words = USER.format(**about["supervisor"], now=about["datetime"], task=about["instruction"])
    return [Message(role="system", content=SYSTEM), Message(role="user", content=words)]


def _rendered(template: str, about: Mapping[str, Any]) -> list[Message]:
    names = {"instruction": about["instruction"], "supervisor": about["supervisor"], "datetime": about["datetime"]}
    names |= {"input_str": names["instruction"], "main_user": names["supervisor"]}
    try:
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
        text = environment.from_string(template).render(names)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        where = f", line {line}" if line else ""
        raise EnvError(f"env.options.prompt{where}: {error}. It may use: {', '.join(names)}") from None
    first, *rest = _ROLE.split(text)
    parts = [("user", first), *zip((role.lower() for role in rest[::2]), rest[1::2], strict=True)]
    messages = [Message(role=role, content=content.strip()) for role, content in parts if content.strip()]
    if not messages or messages[-1]["role"] != "user":
        raise EnvError("env.options.prompt: it must end with a message of the user's, which the solver answers")
    return messages


def joined(blocks: Sequence[str]) -> str:
    """Several blocks run as one."""
    return "\n".join(blocks)


def turn(thought: str, code: str) -> str:
    """A turn as the solver should write it."""
    return f"{thought}\n```python\n{code.strip()}\n```"


def look_ups(code: str) -> int:
    """How many API-doc look-ups a block of code writes out."""
    return len(_LOOK_UP.findall(code))


def gives_up(code: str) -> bool:
    """Whether it ends the task as failed."""
    return _GAVE_UP.search(code) is not None
