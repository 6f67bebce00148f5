"""How a model reads a sequence: what it is fed, and which row of its output predicts which token.

A causal model is fed all tokens but the last, and row n predicts token n + 1. A masked-diffusion model is fed all of
them with its mask token in some places, and row n predicts token n (LLaDA) or, with ``logit_shift`` 1, token n + 1
(Dream, and whatever began as a causal model). The two differ in nothing else that the learner knows. Left out: the
attention (attention.py), which ``causal`` decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlpost.algorithms.base import ModelKind
from rlpost.rollout.hf_model import masked_diffusion_facts


@dataclass(frozen=True, slots=True)
class Reading:
    """Attributes:
    mask_token_id: what a diffusion model is fed in place of a masked token; None for a causal model.
    shift: rows between a token and its prediction.
    """

    mask_token_id: int | None = None
    shift: int = 1

    @classmethod
    def of(cls, config: Any) -> Reading:
        """From a model's configuration."""
        facts = masked_diffusion_facts(config)
        return cls() if facts is None else cls(*facts)

    @property
    def causal(self) -> bool:
        """Whether a token sees only those before it."""
        return self.mask_token_id is None

    @property
    def kind(self) -> ModelKind:
        """In the words of ``Algorithm.model``."""
        return "causal" if self.causal else "diffusion"

    def fed(self, token_ids: NDArray[np.int32], masked: NDArray[np.bool_] | None) -> NDArray[np.int32]:
        """(T,) tokens -> (P,) what goes in, with the mask token where ``masked`` (T,) is true.

        Raises:
            ValueError: a causal model is asked to read masked tokens.
        """
        if self.mask_token_id is None:
            if masked is not None:
                raise ValueError("a causal model has no mask token, so it reads no masked sequence")
            return token_ids[:-1]
        return token_ids if masked is None else np.where(masked, np.int32(self.mask_token_id), token_ids)

    def by_row(self, values: NDArray[Any], fill: Any) -> NDArray[Any]:
        """(T,) one value a token -> (P,) one a row: that of the token it predicts, ``fill`` where there is none."""
        if self.causal:
            return values[1:]
        return np.concatenate([values[self.shift :], np.full(self.shift, fill, values.dtype)])

    def by_token(self, values: NDArray[Any], fill: Any) -> NDArray[Any]:
        """(P,) one value a row -> (T,) one a token, the inverse of ``by_row``."""
        before = np.full(self.shift, fill, values.dtype)
        return np.concatenate([before, values if self.causal else values[: len(values) - self.shift]])
