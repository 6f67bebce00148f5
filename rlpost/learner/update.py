"""One optimizer update: packs → forward → loss → backward → clip → step, on every rank's share of the sequences.

A loss is a sum divided by constants of the whole update, so the gradient does not depend on how the sequences are cut
into packs or spread over ranks. Left out: which sequences and how many updates (step.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from rlpost.algorithms.base import Algorithm, StepConstants
from rlpost.learner.batch import LearnerError
from rlpost.learner.config import LearnerConfig
from rlpost.learner.optimizers import clip_gradient
from rlpost.learner.packing import Pack, share
from rlpost.learner.policy import PolicyModel
from rlpost.learner.rows import ForwardInputs, score_rows
from rlpost.learner.sharding import Ranks
from rlpost.learner.views import FlatBatch


class Sums:
    """Named scalars that add up over packs and ranks; they stay on the device until asked for."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Tensor]] = {}

    def add(self, values: Mapping[str, Tensor], prefix: str = "") -> None:
        """Add detached scalars."""
        for name, value in values.items():
            self._parts.setdefault(prefix + name, []).append(value.detach().double())

    def total(self, ranks: Ranks) -> dict[str, float]:
        """Sums over all ranks; a collective, and one transfer from the device."""
        own: dict[str, float] = {}
        if self._parts:
            values = torch.stack([torch.stack(parts).sum() for parts in self._parts.values()])
            own = dict(zip(self._parts, values.tolist(), strict=True))
        if ranks.world == 1:
            return own
        every: list[dict[str, float]] = [{}] * ranks.world
        dist.all_gather_object(every, own)  # not a plain sum: a rank with nothing but empty packs knows no names
        names = {name: None for one in every for name in one}
        return {name: sum(one.get(name, 0.0) for one in every) for name in names}


@dataclass(slots=True)
class Updater:
    """What an update works with; it changes the weights and the optimizer's state and nothing else."""

    policy: PolicyModel
    ranks: Ranks
    algorithm: Algorithm
    optimizer: torch.optim.Optimizer
    config: LearnerConfig

    def update(
        self, flat: FlatBatch, members: list[int], constants: StepConstants, fresh: bool, temperature: float, where: str
    ) -> dict[str, float]:
        """Learn from sequences ``members`` of ``flat``; a collective.

        Args:
            flat: the step's sequences; where ``fresh`` and no scoring pass ran, its ``old_logprobs`` are filled in.
            members: the sequences of this update, over all ranks.
            constants: of this update, over all ranks.
            fresh: the weights are those of the start of the step.
            temperature: the rollouts' sampling temperature.
            where: begins an error message, e.g. ``step 3``.

        Returns:
            ``loss``, ``grad_norm``, ``entropy`` (mean over policy tokens), ``time/optimizer_s`` and the loss's sums,
            each divided by the number of counted tokens.

        Raises:
            LearnerError: the gradient is not finite; nothing was changed.
        """
        if self.algorithm.preview and not fresh:
            self._preview(flat, members, temperature)
        packs = self._packs(flat, members)[self.ranks.rank]
        record = fresh and flat.old_logprobs is None and flat.reading.causal  # nobody reads those of masked views
        old = torch.zeros_like(flat.advantages) if record else None
        sums = Sums()
        for place, pack in enumerate(packs, start=1):
            self.policy.more_follow(place < len(packs))
            inputs = flat.rows.inputs(pack, self.policy)
            logprobs = self._backward(flat, pack, inputs, constants, fresh, temperature, sums)
            if old is not None:
                old = old.to(logprobs.dtype).index_copy_(0, inputs.scored, logprobs)
        totals = sums.total(self.ranks)
        self.ranks.settle()
        passed = time.perf_counter()
        norm = self._step(where)
        self.ranks.settle()
        seconds = time.perf_counter() - passed
        if old is not None:
            flat.old_logprobs = self.ranks.sum(old)
        means = {name[4:]: value / constants.tokens for name, value in totals.items() if name.startswith("sum/")}
        entropy = totals["entropy"] / constants.policy_tokens
        return means | {"loss": totals["loss"], "entropy": entropy, "grad_norm": norm, "time/optimizer_s": seconds}

    def _packs(self, flat: FlatBatch, members: list[int]) -> list[list[Pack]]:
        """Packs of each rank; where an algorithm wants all views of a response in one graph, these stay together."""
        budget = self.config.max_tokens_per_pack
        if self.algorithm.atomic == "view":
            return flat.rows.packs(self.policy, self.ranks.world, budget, members)
        whole: list[int] = np.bincount(flat.response, weights=flat.rows.lengths).astype(int).tolist()
        responses = np.unique(flat.response[members]).tolist()
        return [
            [Pack(tuple(flat.sequences_of(pack.members)), pack.tokens) for pack in packs]
            for packs in share(whole, self.ranks.world, budget, responses)
        ]

    @torch.no_grad()
    def _preview(self, flat: FlatBatch, members: list[int], temperature: float) -> None:
        """Score the update with the current weights, and keep what the algorithm makes of it for its loss."""
        budget = self.config.max_tokens_per_pack
        logprobs, _ = score_rows(self.policy, self.ranks, flat.rows, budget, temperature, members)
        pack = Pack(tuple(members), sum(flat.rows.lengths[member] for member in members))
        inputs = flat.rows.inputs(pack, self.policy)
        views = flat.views(pack, inputs, logprobs[inputs.scored], None, fresh=False)
        for name, values in self.algorithm.preview_extra(views).items():
            kept = flat.extra.setdefault(name, values.new_zeros(len(flat.advantages)))
            kept[inputs.positions] = values

    def _backward(
        self,
        flat: FlatBatch,
        pack: Pack,
        inputs: ForwardInputs,
        constants: StepConstants,
        fresh: bool,
        temperature: float,
        sums: Sums,
    ) -> Tensor:
        """Forward and backward pass of one pack; its (R,) detached log-probs."""
        logprobs, entropies = self.policy(inputs.input_ids, inputs.layout, inputs.rows, inputs.targets, temperature)
        loss = logprobs.sum() * 0.0  # an empty pack takes part in every collective all the same
        if pack.members:
            read = entropies if self.algorithm.loss_entropies else None
            output = self.algorithm.loss(flat.views(pack, inputs, logprobs, read, fresh), constants)
            if output.loss.requires_grad:
                loss = output.loss
            sums.add({"loss": output.loss, "entropy": entropies.sum()})
            sums.add(output.sums, prefix="sum/")
        loss.backward()
        detached: Tensor = logprobs.detach()
        return detached

    def _step(self, where: str) -> float:
        """Clip and step; the gradient's norm before clipping."""
        norm = clip_gradient([weight for _, weight in self.policy.trainable()], self.config.optimizer.clip_grad)
        if math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if not math.isfinite(norm):
            raise LearnerError(
                f"{where}: the gradient's norm is {norm}, so this update was not made; lower learner.optimizer.lr, or "
                "look at the rollouts of this step for broken log-probs"
            )
        return norm
