"""From a mapping of options to an algorithm's or a selector's config.

Left out: what is said of wrong ones (reward/validation.py), and the configs themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from rlpost.algorithms.base import AlgorithmError
from rlpost.reward.validation import problems


def configured(kind: type[Any], options: Mapping[str, Any], at: tuple[str, ...] = ()) -> Any:
    """An instance of ``kind``, made with its ``Config`` of these options, or with nothing where it has no ``Config``.

    Unknown options are errors, unless the ``Config`` itself says what pydantic should do with extra ones.

    Args:
        kind: an algorithm or a selector.
        options: as read from the recipe.
        at: path of the options below ``algorithm``, e.g. ``("select",)``.

    Raises:
        AlgorithmError: every wrong option.
    """
    model = kind.Config
    if model is None:
        if options:
            raise AlgorithmError(f"{kind.__name__} takes no options, but was given {', '.join(options)}", ".".join(at))
        return kind()
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise AlgorithmError(f"{kind.__name__}.Config must be a pydantic model (pydantic.BaseModel), not {model!r}")
    try:
        says_itself = "extra" in model.model_config
        return kind(model.model_validate(dict(options), extra=None if says_itself else "forbid"))
    except ValidationError as error:
        raise AlgorithmError([problem.below(*at) for problem in problems(error, model)]) from None
