"""Semi-autoregressive decoding of a masked-diffusion model: a batch of rows, block after block.

In each step of a block every masked token is drawn by Gumbel-max in fp64, argmax logits + T g, and the ones the model
is surest of stay ("low-confidence remasking"): as many as the schedule says, or all above a threshold. A token's
log-probability is that under softmax(logits / T) in the step that kept it. Noise comes from each row's own seed, so a
row's tokens do not depend on its neighbours. Left out: the forward pass (model.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlpost.rollout.diffusion.config import DiffusionConfig
from rlpost.rollout.diffusion.model import BlockModel
from rlpost.rollout.diffusion.states import IMPOSSIBLE
from rlpost.rollout.engine import Sample

_ALIVE = 1 << 26
"""Noise of at most so many logits is alive at once."""


@dataclass(slots=True)
class Row:
    """One request.

    Attributes:
        prompt: its token ids.
        temperature: 0 is greedy.
        seed: of its noise.
        cancelled: asked at each block; a cancelled row ends there.
    """

    prompt: Sequence[int]
    temperature: float
    seed: int
    cancelled: Callable[[], bool] = lambda: False


@dataclass(slots=True)
class _Batch:
    """Rows that are still being decoded; tensors are (B, L) with L columns of padding, prompt and response."""

    places: list[int]
    ids: Tensor
    logprobs: Tensor
    steps: Tensor
    padding: list[int]
    noise: list[torch.Generator]
    temperature: Tensor

    def only(self, kept: list[int]) -> _Batch:
        index = torch.tensor(kept, dtype=torch.int64, device=self.ids.device)
        return _Batch(
            [self.places[row] for row in kept],
            self.ids.index_select(0, index),
            self.logprobs.index_select(0, index),
            self.steps.index_select(0, index),
            [self.padding[row] for row in kept],
            [self.noise[row] for row in kept],
            self.temperature.index_select(0, index),
        )


def decode(
    model: BlockModel,
    rows: Sequence[Row],
    length: int,
    config: DiffusionConfig,
    stop_token_ids: Sequence[int],
    version: int = 0,
) -> list[Sample]:
    """Fill ``length`` tokens of every row, a multiple of ``config.block``.

    Rows leave the batch with the block in which they end.

    Returns:
        One sample a row; see ``DiffusionConfig.after_eos`` on where it ends.
    """
    samples: list[Sample | None] = [None] * len(rows)
    prompt = max(len(row.prompt) for row in rows)
    batch = _batch(model, rows, prompt, length)
    for start in range(prompt, prompt + length, config.block):
        block = slice(start, start + config.block)
        _fill(model, batch, block, config)
        kept = []
        for index, (place, ids) in enumerate(
            zip(batch.places, batch.ids[:, prompt : block.stop].tolist(), strict=True)
        ):
            ends = [n for n, token in enumerate(ids) if token in stop_token_ids]
            dropped = config.after_eos == "drop"
            cancelled = rows[place].cancelled()
            if not cancelled and block.stop < prompt + length and not (ends and dropped):
                kept.append(index)
                continue
            count = ends[0] + 1 if ends and dropped else len(ids)
            part = slice(prompt, prompt + count)
            samples[place] = Sample(
                token_ids=np.array(ids[:count], dtype=np.int32),
                logprobs=batch.logprobs[index, part].cpu().numpy(),
                versions=np.full(count, version, dtype=np.int32),
                stopped=bool(ends),
                aborted=cancelled,
                commit_steps=batch.steps[index, part].cpu().numpy(),
            )
        if not kept:
            break
        if len(kept) < len(batch.places):
            batch = batch.only(kept)
    return [sample for sample in samples if sample is not None]


def _batch(model: BlockModel, rows: Sequence[Row], prompt: int, length: int) -> _Batch:
    device = model.device
    padding = [prompt - len(row.prompt) for row in rows]
    ids = np.full((len(rows), prompt + length), model.mask_token_id, dtype=np.int64)
    for index, row in enumerate(rows):
        ids[index, padding[index] : prompt] = row.prompt
    return _Batch(
        places=list(range(len(rows))),
        ids=torch.from_numpy(ids).to(device),
        logprobs=torch.zeros(ids.shape, dtype=torch.float32, device=device),
        steps=torch.full(ids.shape, -1, dtype=torch.int32, device=device),
        padding=padding,
        noise=[torch.Generator(device).manual_seed(row.seed) for row in rows],
        temperature=torch.tensor([row.temperature for row in rows], dtype=torch.float64, device=device),
    )


def _fill(model: BlockModel, batch: _Batch, block: slice, config: DiffusionConfig) -> None:
    """Unmask one block of all rows."""
    counts = config.unmasked()
    before = batch.steps.max(dim=1).values + 1  # a row's own steps so far
    for step in range(config.block):
        masked = batch.ids[:, block] == model.mask_token_id
        if not bool(masked.any()):
            return
        logits = model.logits(batch.ids, batch.padding, block, first=step == 0)
        token, logprob, confidence = draw(logits, batch.temperature, batch.noise, model.mask_token_id)
        confidence = torch.where(masked, confidence, -1.0)
        if config.threshold is None:
            best = confidence.argsort(dim=1, descending=True, stable=True)[:, : counts[step]]
            chosen = torch.zeros_like(masked).scatter(1, best, True)
        else:
            chosen = confidence >= config.threshold
            chosen = chosen.scatter(1, confidence.argmax(dim=1, keepdim=True), True)
        chosen &= masked
        for values, new in ((batch.ids, token), (batch.logprobs, logprob), (batch.steps, before[:, None] + step)):
            values[:, block] = torch.where(chosen, new.to(values.dtype), values[:, block])


def draw(
    logits: Tensor, temperature: Tensor, noise: Sequence[torch.Generator], never: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a token at each place by Gumbel-max.

    Args:
        logits: (B, n, V).
        temperature: (B,) fp64; 0 takes the likeliest token.
        noise: one generator a row; (n, V) uniform fp64 numbers are drawn from each.
        never: the token that is not drawn.

    Returns:
        Three (B, n): the tokens; their log-probability under softmax(logits / T) (T = 1 where greedy); their
        probability under softmax(logits), the confidence. The latter two fp64.
    """
    count, places, vocabulary = logits.shape
    parts = []
    for rows in torch.arange(count).split(max(1, _ALIVE // (places * vocabulary))):
        own = slice(int(rows[0]), int(rows[-1]) + 1)
        scores = logits[own].double()
        scores[..., never] = IMPOSSIBLE
        uniform = torch.empty_like(scores)
        for row in rows.tolist():
            torch.rand((places, vocabulary), generator=noise[row], out=uniform[row - own.start])
        heat = temperature[own, None, None]
        token = (scores - heat * torch.log(-torch.log(uniform))).argmax(dim=-1, keepdim=True)
        plain = torch.log_softmax(scores, dim=-1).gather(-1, token)[..., 0]
        warm = torch.log_softmax(scores / torch.where(heat == 0, 1.0, heat), dim=-1).gather(-1, token)[..., 0]
        parts.append((token[..., 0], warm, plain.exp()))
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))  # type: ignore[return-value]
