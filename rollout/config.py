"""The recipe's ``rollout`` section: how episodes are sampled and what bounds them.

Left out on purpose: top-p, top-k, min-p and penalties. Training compares log-probabilities of the engine with those
of the learner, and that only means something when tokens are drawn from the model's own distribution at a
temperature. Also left out: the engine's own keys (its config stands beside it) and the environment's.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

REFUSED = (
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
)


class RolloutConfig(BaseModel):
    """Keys of the recipe's ``rollout`` section."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    workers: int = Field(1, ge=1, description="rollout workers, each an actor with an engine of its own")
    gpus: float | None = Field(None, gt=0, description="GPU share of each worker; absent: an equal share; cpu: none")
    temperature: float = Field(1.0, gt=0, description="sampling temperature of training episodes")
    max_turns: int = Field(1, ge=1, description="assistant turns an episode may take")
    max_new_tokens: int = Field(256, ge=1, description="tokens one turn may sample")
    max_context: int = Field(2048, ge=2, description="tokens of a whole episode: prompt, turns and observations")
    observation_tokens: int = Field(1024, ge=1, description="longer observations are cut to this many tokens")
    chat: Literal["template", "plain"] = Field(
        "template", description="template: the tokenizer's chat template; plain: texts joined by rollout.separator"
    )
    separator: str = Field("\n", description="stands after each message and turn where rollout.chat is plain")
    deadline_s: float = Field(
        60.0,
        gt=0,
        description="seconds one call into an environment may take, sandboxed judging apart; an overrun loses that "
        "episode only",
    )
    max_concurrent: int = Field(256, ge=1, description="episodes a worker plays at once; the rest wait in order")

    @model_validator(mode="before")
    @classmethod
    def _refuse_truncated_sampling(cls, values: Any) -> Any:
        """Name the reason: "unknown key" would leave a user guessing."""
        named = [key for key in REFUSED if isinstance(values, dict) and key in values]
        if named:
            raise ValueError(
                f"{', '.join(named)}: not offered. Training compares the engine's log-probabilities with the "
                "learner's, which is only right for tokens drawn from the model's whole distribution; top-p, top-k, "
                "min-p and penalties sample from another one. Remove the key; use rollout.temperature instead"
            )
        return values

    @model_validator(mode="after")
    def _room_for_a_prompt(self) -> Self:
        if self.max_new_tokens >= self.max_context:
            raise ValueError(
                f"max_context ({self.max_context}) leaves no room for a prompt beside max_new_tokens "
                f"({self.max_new_tokens}); raise the first or lower the second"
            )
        return self
