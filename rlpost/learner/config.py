"""The learner's own part of a recipe: which model, which optimizer, and how the one copy of the weights is held.

Every field here is a recipe key, so there are few. Left out: what is derived (compute dtype of a device, placement of
actors), and everything that belongs to an algorithm, to rollouts or to the controller.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlpost.reward.registry import Registry


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


LARGEST_BUILT = 10**9


class BuildConfig(_Strict):
    """A small decoder-only model built from scratch, with random weights drawn from the recipe's seed."""

    family: Literal["qwen2", "llama"] = Field("qwen2", description="architecture")
    hidden: int = Field(256, ge=8, description="width of the residual stream")
    layers: int = Field(3, ge=1, description="decoder layers")
    heads: int = Field(4, ge=1, description="query heads")
    kv_heads: int | None = Field(None, ge=1, description="key-value heads; absent: as many as query heads")
    intermediate: int = Field(512, ge=8, description="width of the feed-forward layers")
    initializer_range: float = Field(0.02, gt=0, description="standard deviation of the random weights")
    tied: bool = Field(True, description="one matrix for the input embeddings and the output head")
    tokenizer: str = Field("bytes", description="'bytes', or the name or folder of a Hugging Face tokenizer")

    @model_validator(mode="after")
    def _fits(self) -> BuildConfig:
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of 2 * heads ({2 * self.heads})")
        if self.kv_heads is not None and self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        each = self.hidden * (4 * self.hidden + 3 * self.intermediate)
        if self.layers * each > LARGEST_BUILT:
            raise ValueError(
                f"{self.layers} layers of {each:.1e} parameters; a model built from scratch has at most "
                f"{LARGEST_BUILT:.0e} in its layers"
            )
        return self


class ModelConfig(_Strict):
    """The model to train: one that exists (``path``) or one built from scratch (``build``)."""

    path: str | None = Field(None, description="Hugging Face name, a model folder, or a .gguf file")
    trust_remote_code: bool = Field(False, description="run Python code that comes with the model")
    build: BuildConfig | None = Field(None, description="build a small model instead of loading one")

    @model_validator(mode="after")
    def _one_source(self) -> ModelConfig:
        if (self.path is None) == (self.build is None):
            raise ValueError("give exactly one of path (a model that exists) and build (a small one from scratch)")
        return self


class LisaConfig(_Strict):
    """AdamW on a few decoder layers at a time, drawn anew every few steps; also takes AdamW's options."""

    layers: int = Field(2, ge=1, description="decoder layers trained at a time")
    every: int = Field(20, ge=1, description="steps until others are drawn")
    train_embeddings: bool = Field(True, description="also train embeddings and output head, always")


OPTIMIZERS = Registry(
    "optimizer",
    {
        name: f"rlpost.learner.optimizers:{name}"
        for name in ("adamw", "adamw_bf16", "adamw_8bit", "lisa", "lion", "apollo", "apollo_mini")
    },
)
"""What has a name is a factory ``(param groups, config) -> optimizer``; a user's own is a torch optimizer's class."""


class OptimizerConfig(_Strict):
    """The optimizer, and its learning rate over the steps of the run."""

    name: str = Field(
        "adamw", description=f"{', '.join(OPTIMIZERS.names)}, or module:Class or file.py:Class of torch's"
    )
    lr: float = Field(1e-6, ge=0, description="peak learning rate")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay, of matrices only")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="decay to 0 at the last step")
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up from 0")
    clip_grad: float = Field(1.0, ge=0, description="largest gradient norm of an update; 0: no clipping")
    options: dict[str, Any] = Field(default_factory=dict, description="further arguments of its class, e.g. betas, eps")

    @property
    def lisa(self) -> LisaConfig | None:
        """LISA's own options, where that is the optimizer."""
        if self.name != "lisa":
            return None
        return LisaConfig(**{key: value for key, value in self.options.items() if key in LisaConfig.model_fields})

    @model_validator(mode="after")
    def _lisa_is_sound(self) -> OptimizerConfig:
        _ = self.lisa
        return self


class LoraConfig(_Strict):
    """Low-rank adapters, the only weights that are trained; the frozen base is then a free KL reference."""

    rank: int = Field(16, ge=1, description="rank of each adapter")
    alpha: int = Field(32, gt=0, description="adapters are scaled by alpha / rank")
    targets: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        description="names of the linear layers that get an adapter",
    )


class LearnerConfig(_Strict):
    """Where the single copy of the model lives and how it is computed."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where there is one")
    ranks: int = Field(1, ge=1, description="processes the model is sharded over (FSDP2)")
    gpus: float | None = Field(
        None,
        gt=0,
        le=1,
        description="GPU share of each rank, the rest of it a worker's; absent: all of it where there are enough",
    )
    threads: int = Field(0, ge=0, description="CPU threads of each rank; 0: its share of the cores")
    dtype: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="compute dtype (master weights are fp32); auto: bf16 on cuda, fp32 on cpu"
    )
    max_tokens_per_pack: int = Field(
        16384, ge=2, description="tokens of one forward pass, a prompt in common once; sequences stay whole"
    )
    gradient_checkpointing: bool | Literal["offload"] = Field(
        False,
        description="true: recompute each layer in the backward pass; offload: and keep its input in CPU memory",
    )
    lora: LoraConfig | None = Field(None, description="train adapters only")
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="see OptimizerConfig")

    def on_device(self, cuda_available: bool) -> Literal["cpu", "cuda"]:
        """The device, with ``auto`` resolved."""
        if self.device == "auto":
            return "cuda" if cuda_available else "cpu"
        return self.device

    def compute_dtype(self, device: str) -> Literal["fp32", "bf16"]:
        """The compute dtype on ``device``, with ``auto`` resolved; weights are published in it."""
        if self.dtype == "auto":
            return "bf16" if device == "cuda" else "fp32"
        return self.dtype
