"""Scripted conversations in the payments world, for a warm start that teaches its actions but not how to solve it.

A share of them solve their task. In the others a careless clerk acts at random: most often it pays at once, by name
where it has found no account (the bank refuses that). So a model warmed up on them can copy names and accounts and
knows every action, yet the first action it holds likeliest leads nowhere. All are played in the real world, so that
the answers in them are real. Left out: misspelt actions and wrong amounts.
"""

from __future__ import annotations

import random

from rlpost.envs.base import Demonstration, EnvError, Message, Task
from rlpost.envs.payments_world import World, draw_task, names_of

CARELESS = {"p": 28, "c": 3, "l": 3, "d": 6}
"""How often the careless clerk takes each action, relative to the others."""


def demonstrate(split: str, seed: int, count: int, expert_share: float) -> list[Demonstration]:
    """``count`` conversations. "train": about the names of training tasks; experts and careless clerks mixed.
    "check": about names that no task has; experts only, each ending with the payment, whose account is to be copied
    from the world's last answer.

    Raises:
        EnvError: no such split, or ``expert_share`` is not within 0 to 1.
    """
    if split not in ("train", "check"):
        raise EnvError(f"Payments has demonstrations 'train' and 'check', not '{split}'")
    if not 0 <= expert_share <= 1:
        raise EnvError(f"env.options.expert_share is {expert_share}; it must be within 0 and 1")
    names = names_of(split)
    rng = random.Random(f"payments-demonstrations-{split}-{seed}")
    conversations = []
    for _ in range(count):
        task = draw_task(rng.choice(names), names, rng)
        expert = split == "check" or rng.random() < expert_share
        conversations.append(Demonstration(_play(task, rng, expert, to_payment=split == "check")))
    return conversations


def _play(task: Task, rng: random.Random, expert: bool, to_payment: bool) -> list[Message]:
    """One conversation, up to the world's end or to its first payment."""
    world, name, amount = World(task), task.data["name"], task.data["amount"]
    messages: list[Message] = [{"role": "user", "content": f"pay {name} {amount}"}]
    unseen, answer, account = rng.sample("cl", 2), "", None
    while True:
        action = _next_of_expert(answer, unseen) if expert else rng.choices(list(CARELESS), list(CARELESS.values()))[0]
        text = {"p": f"p {account or name} {amount}", "d": "d"}.get(action, f"{action} {name}")
        messages.append({"role": "assistant", "content": text})
        answer = world.act(text)
        if world.closed or (to_payment and action == "p"):
            return messages
        if action in "cl" and answer != "-":
            account = answer
        messages.append({"role": "user", "content": answer})


def _next_of_expert(answer: str, unseen: list[str]) -> str:
    """Look in one app, then in the other if need be; pay; done."""
    if answer in ("", "-"):
        return unseen.pop()
    return "d" if answer == "ok" else "p"
