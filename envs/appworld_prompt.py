"""What the solver is told, and what is taken from what it says: ReAct turns with Python code blocks.

Left out: worked examples (a warm start on demonstrations shows more of them than a prompt holds).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rlpost.envs.base import Message

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

_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:\n```|\Z)", re.DOTALL)
_LOOK_UP = re.compile(r"\bapis\.api_docs\.\w+\(")
_GAVE_UP = re.compile(r"\bcomplete_task\([^)]*status\s*=\s*[\"']fail")


def opening(about: Mapping[str, Any]) -> list[Message]:
    """The opening messages of an episode; ``about`` as a world describes itself."""
    words = USER.format(**about["supervisor"], now=about["datetime"], task=about["instruction"])
    return [Message(role="system", content=SYSTEM), Message(role="user", content=words)]


def code_blocks(text: str) -> list[str]:
    """The code blocks of a turn; one that is not closed runs to the end."""
    return [match[1] for match in _BLOCK.finditer(text)]


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
