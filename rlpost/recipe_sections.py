"""The recipe's sections that belong to no part of their own, typed and documented.

Left out: the sections of rollouts, engine and learner, which those bring themselves, and what sections say together
(recipe.py).
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator

from rlpost.envs.registry import ENVIRONMENTS
from rlpost.rollout.diffusion.config import DiffusionConfig
from rlpost.rollout.transport.registry import AUTO, find
from rlpost.rollout.vllm.config import VllmConfig


class Part(BaseModel):
    """Base of the recipe's sections: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class EnvSection(Part):
    """The environment an episode is played in."""

    name: str = Field(description=f"{', '.join(ENVIRONMENTS.names)}, or module:Class or path/to/file.py:Class")
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the Env class")


class DataSection(Part):
    """Where tasks come from when the environment brings none of its own."""

    train: str | None = Field(
        None,
        description="JSONL, JSON or parquet file, or a Hugging Face data set: owner/name, owner/name:configuration, "
        "either with @split at its end (@train where it has none)",
    )
    eval: str | None = Field(None, description="the same, held out (@test where it has none)")
    source_weights: str | None = Field(
        None, description="source_weights.json of a ScaleBiO run: draw tasks by the weight of their column 'source'"
    )


class StragglerSection(Part):
    """Stop waiting for the slowest episodes of a step; the rest are cancelled."""

    fraction: float = Field(0.9, gt=0, le=1, description="of all episodes of the step that must be done")
    min_group: float = Field(0.75, gt=0, le=1, description="of each group's episodes that must be done")


class BatchSection(Part):
    """What one step is made of."""

    tasks: int = Field(16, ge=1, description="distinct tasks a step")
    group_size: int = Field(8, ge=1, description="episodes a task (K)")
    straggler: StragglerSection | None = Field(None, description="straggler cut-off; off by default")
    max_failed_fraction: float = Field(
        0.25, ge=0, le=1, description="stop the run when more of a step's episodes than this fail"
    )


class SyncSection(Part):
    """Publishing weights and verifying every publication."""

    transport: str = Field(
        AUTO,
        description="ipc: within one GPU; nccl: from learner rank 0 to GPUs of the workers' own; auto: ipc where all "
        "share one GPU, else object_store; module:Class: your own",
    )
    gap_bound: float | None = Field(
        None,
        gt=0,
        description="largest mean |log-prob difference| learner/engine; default 1e-3 in fp32, 0.2 in bf16",
    )

    @field_validator("transport")
    @classmethod
    def _there_is_one(cls, name: str) -> str:
        if name != AUTO:
            find(name)
        return name

    @property
    def connects(self) -> bool:
        """Whether the recipe asks for a transport whose ends meet; ``auto`` never takes one."""
        return self.transport != AUTO and find(self.transport).connects


class EvalSection(Part):
    """Evaluation on held-out tasks, sampled at T = 1 and greedy, before and after training."""

    episodes: int = Field(256, ge=0, description="episodes an evaluation; 0 switches evaluation off")
    greedy: bool = Field(True, description="also play the same number of episodes greedily")
    every: int = Field(0, ge=0, description="also evaluate every this many steps; 0: before and after only")


class SaveSection(Part):
    """Checkpoints and the record of rollouts."""

    every: int = Field(
        0,
        ge=0,
        description="save a checkpoint every this many steps; the last step always does, and the newest two are kept",
    )
    rollouts: int = Field(16, ge=0, description="trajectories written to rollouts/ a step; 0 writes none")
    tensorboard: bool = Field(False, description="mirror metrics to TensorBoard (extra rlpost[tensorboard])")


class DiffusionEngine(DiffusionConfig, VllmConfig):
    """The ``engine`` section where the algorithm trains a masked-diffusion model: it has these keys beside ``dtype``,
    ``slots`` and ``threads``, and none of vLLM's others means anything."""


def _engine_kind(values: Any) -> str:
    own = DiffusionConfig.model_fields.keys()
    found = isinstance(values, DiffusionConfig) or (isinstance(values, dict) and not own.isdisjoint(values))
    return "Diffusion" if found else "Vllm"


Engine = Annotated[
    Annotated[VllmConfig, Tag("Vllm")] | Annotated[DiffusionEngine, Tag("Diffusion")], Discriminator(_engine_kind)
]
