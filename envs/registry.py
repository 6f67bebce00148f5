"""The environments that have a short name, and whether an environment takes the options a recipe gives it.

Left out: calling environments (rollout/env_session.py), and the values of options (each environment checks its own).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from rlpost.envs.base import Env
from rlpost.reward.messages import nearest
from rlpost.reward.registry import Registry
from rlpost.reward.validation import Problem

ENVIRONMENTS = Registry(
    "environment",
    {
        "appworld": "rlpost.envs.appworld:AppWorld",
        "countdown": "rlpost.envs.countdown:Countdown",
        "mini_errands": "rlpost.envs.errands.mini:MiniErrands",
        "payments": "rlpost.envs.payments:Payments",
        "reasoning": "rlpost.envs.reasoning:ReasoningGym",
        "single_turn": "rlpost.envs.single_turn:SingleTurn",
        "sudoku": "rlpost.envs.sudoku:Sudoku",
    },
    Env,
)

GIVEN = ("__init__", "tasks", "demonstrations")
"""Methods that get the options as keyword arguments."""
_BEFORE = {"__init__": 3, "tasks": 2, "demonstrations": 3}
"""How many arguments come before the options; ``self`` counts, a bound ``cls`` does not."""
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def option_problems(env: type[Env], options: Mapping[str, Any], called: Sequence[str]) -> list[Problem]:
    """Options that the class does not take, or needs and was not given; paths are keys of ``options``.

    Args:
        env: the environment's class.
        options: the recipe's ``env.options``.
        called: those of ``GIVEN`` that the run will call.
    """
    methods = {name: inspect.signature(getattr(env, name)).parameters.values() for name in GIVEN}
    named = {name: {one.name: one for one in found if one.kind in _NAMED} for name, found in methods.items()}
    takes_any = {name for name, found in methods.items() if any(one.kind is one.VAR_KEYWORD for one in found)}
    known = sorted({key for name, found in named.items() for key in list(found)[_BEFORE[name] :]})
    # Where a constructor of its own takes what it does not name, any key may mean something to it.
    strict = env.__init__ is Env.__init__ or "__init__" not in takes_any
    problems = []
    for key in options:
        closed = [name for name in called if key not in named[name] and name not in takes_any]
        if closed or (strict and key not in known):
            who = env.__name__ if not closed or closed[0] == "__init__" else f"{env.__name__}.{closed[0]}"
            problems.append(Problem((key,), f"{who} takes no such option{nearest(key, known)}"))
    for name in called:
        for key, one in list(named[name].items())[_BEFORE[name] :]:
            if one.default is one.empty and key not in options:
                problems.append(Problem((key,), f"{env.__name__} needs this option, and it is missing"))
    return list(dict.fromkeys(problems))
