"""The learner: one copy of the weights, and everything that is ever done to it.

A plain class, one object a rank; where there are several ranks every public method is a collective that all of them
must call alike. Left out: Ray (actor.py, group.py) and what happens inside a step (step.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rlpost.algorithms import registry
from rlpost.algorithms.base import Algorithm
from rlpost.learner.batch import LearnerError, LearnerSetup, LearnResult, StepBatch
from rlpost.learner.checkpoint import load_checkpoint, save_checkpoint
from rlpost.learner.export import DTYPES, PublishedWeights, files_beside_weights
from rlpost.learner.gpu_memory import growing_segments
from rlpost.learner.lisa import Lisa
from rlpost.learner.model import load_model
from rlpost.learner.optimizers import make_optimizer
from rlpost.learner.rows import Rows, score_rows
from rlpost.learner.sharding import Ranks
from rlpost.learner.step import learn
from rlpost.learner.update import Updater
from rlpost.rollout.diffusion.states import probe_ids, probe_masks
from rlpost.rollout.digest import Sent
from rlpost.rollout.transport.ends import Rendezvous
from rlpost.rollout.transport.registry import find
from rlpost.rollout.weight_update import WeightUpdate


class Learner:
    """One rank of the learner.

    Args:
        setup: what all ranks are started with.
        rank, world: this rank of how many.
        algorithm: used instead of the one ``setup`` names.

    Attributes:
        vocabulary: rows of the output head; token ids are below it.
        steps_done: learning steps taken, those of the checkpoint included.

    Raises:
        ModelError: the model cannot be loaded; ModelRefused: its log-probs would not be exact.
        LearnerError: CUDA is asked for and absent, the ranks do not meet, or the algorithm cannot work with this setup.
    """

    def __init__(self, setup: LearnerSetup, rank: int = 0, world: int = 1, algorithm: Algorithm | None = None) -> None:
        self.setup = setup
        self.steps_done = 0
        self._base = Path(setup.folder)
        self._transport = find(setup.transport)
        config = setup.config
        kind = config.on_device(torch.cuda.is_available())
        if kind == "cuda" and not torch.cuda.is_available():
            raise LearnerError("learner.device: cuda, but this process sees no GPU; set learner.device: cpu")
        device = Ranks.device_of(kind, rank)
        if kind == "cuda":
            growing_segments()
        if algorithm is None and setup.algorithm is not None:
            algorithm = registry.build(setup.algorithm, setup.algorithm_options)
        if algorithm is not None and "ref_logprobs" in algorithm.needs and config.lora is None:
            raise LearnerError(
                "the algorithm wants log-probs of a reference, which is the base without adapters, and there are no "
                "adapters: set learner.lora, or switch the KL off"
            )
        sharded = world > 1 or config.compute_dtype(device.type) != "fp32"
        self._ranks = Ranks(rank, world, device, setup.rendezvous, setup.collective_timeout_s, sharded)
        self.policy = load_model(
            self._base,
            config,
            self._ranks,
            setup.trust_remote_code,
            setup.seed,
            setup.compiled,
            max_context=setup.max_context,
        )
        found = self.policy.reading.kind
        if algorithm is not None and algorithm.model != found:
            raise LearnerError(f"the algorithm trains a {algorithm.model} model, and '{setup.folder}' is a {found} one")
        dtype = self.policy.compute if setup.publish_dtype is None else DTYPES[setup.publish_dtype]
        rank_of_adapters = config.lora.rank if config.lora else 0
        self._published = PublishedWeights(self.policy, self._ranks, dtype, rank_of_adapters)
        self._optimizer = make_optimizer(self.policy.trainable(), config.optimizer, setup.optimizer)
        lisa = config.optimizer.lisa
        self._lisa = Lisa(self.policy, self._optimizer, lisa, setup.seed) if lisa else None
        self._algorithm = algorithm
        self._beside = files_beside_weights(self._base)
        self.vocabulary = int(self.policy.model.config.get_text_config().vocab_size)

    def learn(self, batch: StepBatch) -> LearnResult:
        """One learning step; see ``rlpost.learner.step.learn``.

        Raises:
            LearnerError: no algorithm was given, or the gradient is not finite.
            AlgorithmError: the algorithm cannot work with this batch.
        """
        if self._algorithm is None:
            raise LearnerError("this learner was started without an algorithm, so it cannot learn")
        if self._lisa is not None:
            self._lisa.activate(batch.step)
        updater = Updater(self.policy, self._ranks, self._algorithm, self._optimizer, self.setup.config)
        on_gpu = self.policy.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        result = learn(updater, batch)
        if on_gpu:
            result.metrics["memory/learner_peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
            result.metrics["memory/learner_reserved_gib"] = torch.cuda.max_memory_reserved() / 2**30
        self.steps_done = batch.step + 1
        return result

    def score(self, sequences: Sequence[Sequence[int]], temperature: float = 1.0) -> list[NDArray[np.float32]]:
        """Log-probs of tokens 1.. of each sequence, (L_i - 1,) float32 each, with the weights as they are now; of a
        diffusion model, in the states of ``probe_masks``."""
        reading = self.policy.reading
        if reading.mask_token_id is None:
            arrays = [np.asarray(sequence, dtype=np.int32) for sequence in sequences]
            wanted = [np.ones(len(array), dtype=np.bool_) for array in arrays]
            return self._token_scores(Rows.of(reading, arrays, wanted), temperature)
        arrays = [probe_ids(sequence, reading.mask_token_id) for sequence in sequences for _ in range(2)]
        states = [masked for sequence in sequences for masked in probe_masks(len(sequence))]
        scores = self._token_scores(Rows.of(reading, arrays, states, states), temperature)
        return [even + odd for even, odd in zip(scores[::2], scores[1::2], strict=True)]

    def _token_scores(self, rows: Rows, temperature: float) -> list[NDArray[np.float32]]:
        """(L_i - 1,) log-probs of tokens 1.. of each sequence, 0 where not wanted."""
        budget = self.setup.config.max_tokens_per_pack
        logprobs, _ = score_rows(self.policy, self._ranks, rows, budget, temperature)
        host = logprobs.float().cpu().numpy()
        parts = (host[start:end] for start, end in zip(rows.bounds[:-1], rows.bounds[1:], strict=True))
        return [self.policy.reading.by_token(part, np.float32(0))[1:] for part in parts]

    def weights(self, version: int) -> WeightUpdate:
        """This rank's share of the current weights as one record; see ``weight_parts``."""
        return WeightUpdate.join(list(self.weight_parts(version)) or [WeightUpdate(version)])

    def weight_parts(self, version: int) -> Iterator[WeightUpdate]:
        """The current weights for the engines, of adapters alone where they are all that is trained: this rank's share,
        in parts.

        They may share memory with the live weights, and the next publication may overwrite this one: deliver them
        before the next ``learn`` or ``weights``. By broadcast rank 0 says what ``send`` will bring.
        """
        if self.setup.yields_memory and self.policy.device.type == "cuda":
            torch.cuda.empty_cache()
        self._published.begin(version)
        yield from self._transport.parts(self._published, version)

    def connect(self, where: Rendezvous) -> None:
        """Meet the engines, where the transport connects; only rank 0 sends."""
        if self._ranks.rank == 0:
            self._transport.connect(where, self.policy.device)

    def send(self) -> None:
        """Send the weights that ``weight_parts`` announced, while the engines take them; a collective."""
        self._ranks.settle()
        self._transport.send(self._published)
        self._ranks.settle()

    def sent(self, version: int) -> dict[str, Sent]:
        """On rank 0, digests of the weights that were handed out as ``version``, by name; elsewhere nothing."""
        return self._published.sent(version)

    def save(self, folder: Path) -> None:
        """Write a checkpoint: a Hugging Face folder plus the trainer's state."""
        how = (self.policy, self._optimizer, self._ranks, self.steps_done, self._base, self._beside)
        save_checkpoint(folder, *how, self.setup.config.lora)

    def load(self, folder: Path) -> int:
        """Go on from a checkpoint, exactly; the number of learning steps it has behind it.

        Raises:
            ModelError: no complete checkpoint there, or one of another model.
        """
        self.steps_done, base = load_checkpoint(folder, self.policy, self._optimizer, self._ranks)
        if self.policy.has_adapters:
            self._base = base
        return self.steps_done

    def close(self) -> None:
        """Leave the other ranks and free the model."""
        self._ranks.close()
        self._transport.close()
        del self.policy, self._published, self._optimizer, self._lisa
