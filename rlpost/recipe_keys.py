"""The recipe's keys: typed, strict, documented. They compose each part's own config.

Left out: the algorithms' own keys (each algorithm brings a config class; algorithms/registry.py parses them), reading a
recipe and finding the code it names (recipe.py), and whether that code fits (recipe_checks.py).
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from rlpost.cluster_config import ClusterSection
from rlpost.learner.config import LearnerConfig, ModelConfig
from rlpost.recipe_sections import (
    BatchSection,
    DataSection,
    Engine,
    EnvSection,
    EvalSection,
    Part,
    SaveSection,
    SyncSection,
)
from rlpost.rollout.config import RolloutConfig
from rlpost.rollout.diffusion.config import DiffusionConfig
from rlpost.rollout.vllm.config import VllmConfig
from rlpost.warm_start import WarmStartConfig


class RecipeKeys(Part):
    """Everything a run is made of. ``rlpost explain`` prints what follows from it."""

    model: ModelConfig
    env: EnvSection = Field(default_factory=lambda: EnvSection(name="rlpost.envs.base:Env"))
    algorithm: dict[str, Any] = Field(
        default_factory=lambda: {"name": "grpo"}, description="name, and the algorithm's own keys"
    )
    steps: int = Field(100, ge=0, description="steps: one batch of rollouts, one publication, one policy version each")
    seed: int = Field(0, ge=0, lt=2**31, description="every random draw of the run derives from it")
    lag: int = Field(0, ge=0, le=8, description="0: synchronous; n: rollouts run up to n policy versions ahead")
    deterministic: bool = Field(False, description="same metrics bit for bit on a CPU in fp32; slower")
    sandbox: Literal["isolated", "unsafe"] = Field(
        "isolated", description="unsafe: run model-written code with your rights where the host cannot isolate it"
    )
    warm_start: WarmStartConfig | None = None
    data: DataSection = Field(default_factory=DataSection)
    batch: BatchSection = Field(default_factory=BatchSection)
    rollout: RolloutConfig = Field(default_factory=RolloutConfig)
    engine: Engine = Field(default_factory=VllmConfig)
    learner: LearnerConfig = Field(default_factory=LearnerConfig)
    sync: SyncSection = Field(default_factory=SyncSection)
    eval: EvalSection = Field(default_factory=EvalSection)
    save: SaveSection = Field(default_factory=SaveSection)
    cluster: ClusterSection = Field(default_factory=ClusterSection)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """What two sections say together must be possible."""
        room = self.rollout.max_context - self.rollout.max_new_tokens
        if room <= 0:
            raise ValueError(
                f"rollout.max_context ({self.rollout.max_context}) leaves no room for a prompt beside "
                f"rollout.max_new_tokens ({self.rollout.max_new_tokens})"
            )
        if self.lag > 0 and self.deterministic:
            raise ValueError("deterministic: true needs lag: 0; overlapping generation depends on timing")
        if self.lag > 0 and self.engine.sleep:
            raise ValueError("engine.sleep: true needs lag: 0; with a lag the engine samples while the learner works")
        if self.deterministic and self.batch.straggler is not None:
            raise ValueError("deterministic: true cannot go with batch.straggler; which episodes are cut is timing")
        return self

    @property
    def diffusion(self) -> DiffusionConfig | None:
        """How responses are filled where the algorithm trains a masked-diffusion model; None where vLLM samples."""
        return self.engine if isinstance(self.engine, DiffusionConfig) else None

    @property
    def rollouts_per_step(self) -> int:
        """Episodes a step."""
        return self.batch.tasks * self.batch.group_size

    def gap_bound(self, device: str) -> float:
        """The bound in force on the mean |log-prob difference| between learner and engine on ``device``."""
        if self.sync.gap_bound is not None:
            return self.sync.gap_bound
        exact = self.learner.compute_dtype(device) == self.engine.compute_dtype(device) == "fp32"
        # Logits of a trained model rounded to bf16: two right implementations were 0.05 to 0.09 apart on the probe.
        return 1e-3 if exact else 0.2
