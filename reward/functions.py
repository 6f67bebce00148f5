"""Reward functions, ours and the user's, brought into one shape: text and task in, Score out, or one clear error.

A function's parameter names tell its kind: ``f(completion, task)`` returns a number or a Score; with a parameter
called ``completions`` it is TRL's ``f(prompts, completions, **columns)`` and returns one number a completion. Left
out: coroutines, and functions that compare the completions of a group (each is asked about one at a time).
"""

from __future__ import annotations

import functools
import inspect
import logging
import math
import numbers
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlpost.reward.plugins import Plugin, PluginError
from rlpost.reward.registry import Registry
from rlpost.reward.sandbox import SandboxError
from rlpost.reward.score import RewardError, Score

logger = logging.getLogger(__name__)

REWARDS = Registry(
    "reward function",
    {
        "math": "rlpost.reward.math:score",
        "math_boxed": "rlpost.reward.math:boxed",
        "math_marked": "rlpost.reward.math:marked",
        "gsm8k": "rlpost.reward.math:gsm8k",
        "countdown": "rlpost.reward.countdown:reward",
        "sudoku": "rlpost.reward.sudoku:reward",
        "code": "rlpost.reward.code:reward",
    },
)


class RewardFunction:
    """A reward function of either kind.

    Args:
        function: the callable.
        name: how the user named it; every error says it.

    Raises:
        RewardError: it is not callable, a class, a coroutine function, or takes neither kind's arguments.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.function, self.name = function, name
        self._parameters = self._inspected()
        self.batched = "completions" in self._parameters

    def __call__(self, completion: str, task: Mapping[str, Any], task_id: str) -> Score:
        """The score of one completion.

        Args:
            completion: the model's text. A TRL function sees a list of one; where column ``prompt`` is a list of
                messages, the completion is one too, as in TRL.
            task: the task's columns; a TRL function gets each as a list of one.
            task_id: named in errors.

        Raises:
            RewardError: the function raised, or returned anything but one finite number (or a Score of such).
            SandboxError: the sandbox failed twice (a process of its machinery was killed, most often for want of
                memory): nothing is known of this completion, and nothing is wrong with the function.
        """
        try:
            return self._once(completion, task, task_id)
        except SandboxError as error:
            logger.warning("reward function '%s' on task '%s' is asked once more: %s", self.name, task_id, error)
            return self._once(completion, task, task_id)

    def _once(self, completion: str, task: Mapping[str, Any], task_id: str) -> Score:
        try:
            returned = self._ask_batch(completion, task) if self.batched else self.function(completion, dict(task))
            return self._as_score(returned)
        except SandboxError:
            raise
        except RewardError as error:
            raise RewardError(f"reward function '{self.name}' on task '{task_id}': {error}") from error
        except (Exception, SystemExit) as error:
            raise RewardError(
                f"reward function '{self.name}' raised on task '{task_id}': "
                f"{type(error).__name__}: {error} ({_place(error)})"
            ) from error

    def check(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Ask the function's own check (``score.checked_by``), where it has one, whether it can judge by all rows.

        Raises:
            RewardError: it cannot; names the row.
        """
        check = getattr(self.function, "check", None)
        if callable(check):
            try:
                check(rows)
            except RewardError as error:
                raise RewardError(f"reward function '{self.name}': {error}") from error

    def _ask_batch(self, completion: str, task: Mapping[str, Any]) -> Any:
        prompt = task.get("prompt", "")
        chat = not isinstance(prompt, str)
        written: Any = [{"role": "assistant", "content": completion}] if chat else completion
        columns = {name: [value] for name, value in task.items()}
        offered = {**columns, "prompts": [prompt], "completions": [written]}
        takes_any = any(p.kind is p.VAR_KEYWORD for p in self._parameters.values())
        missing = [p.name for p in self._parameters.values() if _is_required(p) and p.name not in offered]
        if missing:
            raise RewardError(f"it needs the column '{missing[0]}'; the task has: {', '.join(task) or 'none'}")
        wanted = {name: value for name, value in offered.items() if takes_any or name in self._parameters}
        if "prompt" not in self._parameters:
            wanted.pop("prompt", None)  # TRL hands it over as ``prompts`` only
        returned = self.function(**wanted)
        if isinstance(returned, str) or not (isinstance(returned, Sequence) or hasattr(returned, "tolist")):
            raise RewardError(f"it must return a list with one number a completion, not {_shown(returned)}")
        items = returned.tolist() if hasattr(returned, "tolist") else list(returned)
        if not isinstance(items, list) or len(items) != 1:
            raise RewardError(f"it returned {_length(items)} for 1 completion")
        return items[0]

    def _as_score(self, returned: Any) -> Score:
        if isinstance(returned, Score):
            for part, value in returned.parts.items():
                if not _is_number(value) or not math.isfinite(value):
                    raise RewardError(f"part '{part}' of its score is {_shown(value)}, which is not a finite number")
            return returned
        if not _is_number(returned):
            kind = "" if self.batched else " or a Score"
            raise RewardError(f"it must return a number{kind}, not {_shown(returned)}")
        return Score(float(returned))

    def _inspected(self) -> Mapping[str, inspect.Parameter]:
        function = self.function
        if not callable(function) or isinstance(function, type):
            raise RewardError(f"'{self.name}' is not a reward function but {_shown(function)}")
        if inspect.iscoroutinefunction(function):
            raise RewardError(f"reward function '{self.name}' is a coroutine function; write it with a plain def")
        signature = inspect.signature(function)
        if "completions" not in signature.parameters:
            try:
                signature.bind("completion", {})
            except TypeError:
                raise RewardError(
                    f"reward function '{self.name}' takes {signature}; it must be f(completion, task) or TRL's "
                    "f(prompts, completions, **columns)"
                ) from None
        return signature.parameters


def load_reward(target: str | Plugin | Mapping[str, Any]) -> RewardFunction:
    """The reward function that a recipe names, see ``Registry.load``; with options, ``{function: code, share: true}``,
    which are keyword arguments of the function (not for a file's).

    Raises:
        RewardError: there is none of that name, it is not a reward function, or it takes no such option.
    """
    if isinstance(target, Mapping):
        options = dict(target)
        name = options.pop("function", None)
        if not isinstance(name, str) or name.partition(":")[0].endswith(".py"):
            raise RewardError(
                f"a reward with options names its function as 'function', built in or module:function: {target}"
            )
        return RewardFunction(_with_options(load_reward(name).function, name, options), name)
    name = target.target if isinstance(target, Plugin) else target
    try:
        return RewardFunction(REWARDS.load(target), str(name))
    except PluginError as error:
        raise RewardError(str(error)) from error


def _with_options(function: Callable[..., Any], name: str, options: dict[str, Any]) -> Callable[..., Any]:
    """The function with its options set, and so its check, as far as that takes them."""
    taken = [option for option in inspect.signature(function).parameters if option not in ("completion", "task")]
    unknown = [option for option in options if option not in taken]
    if unknown:
        raise RewardError(
            f"reward function '{name}' takes no option '{unknown[0]}'; it takes: {', '.join(taken) or 'none'}"
        )
    bound = functools.partial(function, **options)
    check = getattr(function, "check", None)
    if callable(check):
        known = {option: value for option, value in options.items() if option in inspect.signature(check).parameters}
        bound.check = functools.partial(check, **known)  # type: ignore[attr-defined]
    return bound


def _is_required(parameter: inspect.Parameter) -> bool:
    named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    return named and parameter.default is parameter.empty


def _is_number(value: Any) -> bool:
    """NumPy's own count, and so do truth values; text, None, arrays and complex numbers do not."""
    return isinstance(value, numbers.Real) or type(value).__name__ in ("bool_", "bool")


def _length(items: Any) -> str:
    return f"{len(items)} numbers" if isinstance(items, list) else _shown(items)


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def _place(error: BaseException) -> str:
    """File and line where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "place unknown"
