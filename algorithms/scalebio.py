"""ScaleBiO (arXiv 2406.19976): how much each data source should count, learned from a validation set.

With p = softmax(lambda) over m sources, L2(p, x) = sum_i p_i (mean loss of x on source i) and L1(x) = loss of x on the
validation set, u follows the minimum of L2 and w that of L1 + alpha L2 (both losses are divided by alpha here, so that
alpha changes the mix and not the size), and

    d/d lambda_i = alpha p_i (delta_i - sum_k p_k delta_k),   delta_i = mean loss of w on source i - that of u

A source on which the model that has seen the validation set does better gains weight. One step moves u, w and lambda
once each; only first derivatives are taken. Left out: data, models and optimizers of u and w (rlpost/bilevel).
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from rlpost.algorithms.base import Algorithm, LossOutput, Need, PackedViews, StepConstants, TrainerKind

LOWEST = 1e-6
"""No weight falls below this share of the largest one: softmax would underflow to 0, and 0 never comes back."""

Floats = TypeVar("Floats", NDArray[np.float64], Tensor)


class DataConfig(BaseModel):
    """Where examples come from; a plain string in a recipe is ``data``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str = Field(
        description="JSONL, JSON (both also .gz) or parquet file, or a data set as in data.train (@split)"
    )
    name: str = Field("", description="what the source is called; absent: the file's name without its ending")
    column: str | None = Field(
        None, description="one source a value of this column, named by it, instead of one in all"
    )

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, given: Any) -> Any:
        return {"data": given} if isinstance(given, str) else given

    @property
    def label(self) -> str:
        """The source's name."""
        return self.name or Path(self.data.partition("@")[0]).name.split(".")[0]


class ScaleBiOConfig(BaseModel):
    """Keys of ``algorithm: {name: scalebio}``; ``steps`` of the recipe are steps of (u, w, lambda)."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    sources: list[DataConfig] = Field(min_length=1, description="the data sources to be weighted, two at least")
    validation: DataConfig = Field(description="examples of what the model is to be good at")
    test: DataConfig | None = Field(None, description="held-out examples on which the final fine-tunings are compared")
    alpha: float = Field(10.0, gt=0, description="weight of the training loss beside the validation loss")
    weights_lr: float = Field(1e-2, gt=0, description="learning rate of the source weights' logits (AdamW)")
    batch_size: int = Field(64, ge=1, description="training examples a step, and as many of the validation set")
    layout: Literal["adapters", "two_copies"] = Field(
        "adapters", description="u and w as two LoRA adapters on one model, or as two whole models"
    )
    allow_overlap: bool = Field(False, description="go on where validation or test examples are also training examples")
    max_broken: int = Field(10, ge=0, description="broken rows, of all files together, that are reported and skipped")
    sft_examples: int | None = Field(
        None, ge=0, description="examples of the final fine-tuning; absent: as many as there are; 0: no fine-tuning"
    )
    sft_lr: float | None = Field(None, gt=0, description="its learning rate; absent: learner.optimizer.lr")

    @model_validator(mode="after")
    def _sources(self) -> Self:
        if len(self.sources) == 1 and self.sources[0].column is None:
            raise ValueError(
                f"the weight of a single source ('{self.sources[0].label}') is always 1; name two sources or more, or "
                "the column that tells them apart"
            )
        labels = [source.label for source in self.sources if source.column is None]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(
                f"two sources are called '{twice[0]}'; give each a name of its own ({{name: ..., data: ...}})"
            )
        return self


def source_gradient(probs: Floats, delta: Floats, alpha: float) -> Floats:
    """d/d lambda of alpha sum_i p_i delta_i with p = softmax(lambda): alpha p_i (delta_i - sum_k p_k delta_k).

    Args:
        probs: (m,) source weights p, summing to 1.
        delta: (m,) mean loss of w on each source minus that of u.
        alpha: weight of the training loss.

    Returns:
        (m,); it sums to 0.
    """
    return alpha * probs * (delta - (probs * delta).sum())


def source_means(losses: NDArray[np.float64], sources: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """(m,) mean of the (B,) losses of each source's examples; NaN where a source has none in the batch."""
    seen = np.bincount(sources, minlength=count)
    with np.errstate(invalid="ignore"):
        means: NDArray[np.float64] = np.bincount(sources, weights=losses, minlength=count) / seen
    return means


def train_coefficients(probs: NDArray[np.float64], sources: NDArray[np.int64]) -> NDArray[np.float64]:
    """(B,) what each example's loss counts in the batch's estimate of L2: p_i / (examples of source i in the batch).

    A source that is missing from the batch has no term in it.
    """
    coefficients: NDArray[np.float64] = (probs / np.maximum(np.bincount(sources, minlength=len(probs)), 1))[sources]
    return coefficients


def token_mean_coefficients(tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """(B,) coefficients that make the sum of mean losses a mean over all (B,) learned tokens."""
    coefficients: NDArray[np.float64] = tokens / tokens.sum()
    return coefficients


class SourceWeights:
    """The logits lambda and their AdamW, in fp64; the same on every rank, since every rank sees the same gradient.

    Args:
        count: m, how many sources; all start alike.
    """

    def __init__(self, count: int) -> None:
        self.logits = torch.nn.Parameter(torch.zeros(count, dtype=torch.float64))
        self.optimizer = torch.optim.AdamW([self.logits])

    @property
    def probs(self) -> NDArray[np.float64]:
        """(m,) softmax of the logits."""
        probs: NDArray[np.float64] = self.logits.detach().softmax(0).numpy()
        return probs

    def update(self, delta: NDArray[np.float64], alpha: float, rate: float) -> NDArray[np.float64]:
        """One AdamW step; the (m,) gradient it took.

        Args:
            delta: (m,), NaN for a source that was missing from the batch: nothing is known of it, so its own gradient
                is 0 and the others are compared among themselves.
            alpha: weight of the training loss.
            rate: learning rate of this step.
        """
        probs = self.probs
        known = ~np.isnan(delta)
        average = (probs[known] * delta[known]).sum() / probs[known].sum()
        gradient = source_gradient(probs, np.where(known, delta, average), alpha)
        self.logits.grad = torch.from_numpy(gradient)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        with torch.no_grad():
            self.logits.clamp_(min=float(self.logits.max()) + math.log(LOWEST))
        return gradient

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return copy.deepcopy({"logits": self.logits.detach(), "optimizer": self.optimizer.state_dict()})

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of ``state``."""
        self.optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            self.logits.copy_(state["logits"])


class ScaleBiO(Algorithm):
    """The loss that u, w and the final fine-tuning share: sum over examples of coefficient x mean loss of its tokens.

    The coefficient travels as the sequence's advantage.
    """

    Config: ClassVar[type | None] = ScaleBiOConfig
    trainer: ClassVar[TrainerKind] = "bilevel"

    @property
    def needs(self) -> frozenset[Need]:
        """Nothing beforehand."""
        return frozenset()

    def loss(self, views: PackedViews, constants: StepConstants) -> LossOutput:
        """See the class."""
        share = views.advantages / views.sequence_tokens[views.sequence]
        return LossOutput(-(views.logprobs * share)[views.mask].sum())

    def describe(self) -> dict[str, Any]:
        """See Algorithm."""
        config = self.config
        return {
            "sources": ", ".join(
                source.label if source.column is None else f"{source.data} by {source.column}"
                for source in config.sources
            ),
            "u and w": "two LoRA adapters on one model" if config.layout == "adapters" else "two whole models",
            "examples a step": f"{config.batch_size} of the sources, {config.batch_size} of the validation set",
        }
