"""Remote calls that mypy checks: a method is named by itself, ``remote(actor, RolloutActor.ready)``, never by a string.

Its annotations give the types of arguments and answer, so that a renamed method or a wrong argument is an error before
anything runs. Left out: deadlines and what a fault means (workers.py, learner/group.py).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

import ray

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Calls(Generic[R]):
    """One method called on several actors and not waited for; each of ``refs`` will be an ``R``."""

    method: str
    refs: list[ray.ObjectRef]


def start(kind: Callable[P, Any], options: dict[str, Any], *args: P.args, **kwargs: P.kwargs) -> Any:
    """A new actor of a class, with Ray's ``options``; at once, before its constructor has run."""
    return cast(Any, ray.remote(cast(Any, kind))).options(**options).remote(*args, **kwargs)


def remote(actor: Any, method: Callable[Concatenate[Any, P], Any], *args: P.args, **kwargs: P.kwargs) -> Any:
    """A call, not waited for: Ray's reference to the answer."""
    return getattr(actor, method.__name__).remote(*args, **kwargs)


def remote_pair(
    actor: Any,
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, tuple[R, T]]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> tuple[ray.ObjectRef[R], ray.ObjectRef[T]]:
    """A call whose answer is a pair: a reference to each half."""
    first, second = getattr(actor, method.__name__).options(num_returns=2).remote(*args, **kwargs)
    return first, second


def value_of(ref: ray.ObjectRef[R]) -> R:
    """A reference as an argument of a remote call: Ray hands the actor the value."""
    return cast(R, ref)
