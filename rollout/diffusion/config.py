"""Keys of the recipe's ``engine`` section that only a masked-diffusion model has: how a response is filled.

Left out: what any engine has (``dtype``, ``slots``, ``threads``).
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class DiffusionConfig(BaseModel):
    """Block-wise decoding of a masked-diffusion model; used where the algorithm trains one."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    block: int = Field(32, ge=1, description="tokens of a block; rollout.max_new_tokens is a multiple of it")
    steps: int | None = Field(
        None, ge=1, description="unmasking steps a block (a remainder goes to its first steps); absent: one a token"
    )
    threshold: float | None = Field(
        None, gt=0, le=1, description="unmask all tokens of at least this confidence, at least one, instead of steps"
    )
    cache: Literal["none", "prefix", "dual"] = Field(
        "none", description="keep keys and values of what lies before the block (prefix), or also after it (dual)"
    )
    after_eos: Literal["drop", "keep"] = Field(
        "drop", description="drop: the response ends with the first end token; keep: all max_new_tokens belong to it"
    )

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        if self.steps is not None and self.steps > self.block:
            raise ValueError(f"steps ({self.steps}) of a block cannot be more than its tokens ({self.block})")
        return self

    def unmasked(self) -> list[int]:
        """How many tokens each step of a block unmasks; sums to ``block``."""
        steps = self.steps or self.block
        return [self.block // steps + (step < self.block % steps) for step in range(steps)]
