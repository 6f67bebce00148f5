"""The training of the warm start: TRL's SFTTrainer, ended by a check of what it is for.

It runs in the process of warm_start_worker.py. Left out: checkpoints (a warm start is short), adapters, and several
processes (accelerate's launcher is for that).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer

from rlpost.learner.rotary import freeze_rotary
from rlpost.learner.source import generation_config, write_model
from rlpost.warm_start import DONE, PROGRESS, WarmStartJob
from rlpost.warm_start_data import Conversation

CHECK_EVERY = 10
LOGITS_ALIVE = 2**26
"""A check's batches are cut so that no more logits than this are alive at once."""


@torch.no_grad()
def accuracy(model: Any, checks: Sequence[Conversation]) -> float:
    """The probability that the model, sampling at temperature 1, writes a conversation's last turn token for token:
    exp(sum of the log-probabilities of its tokens), as the mean over ``checks``.

    The likeliest tokens alone would say little: they can all be right while a sampled turn of seven goes wrong every
    second time.
    """
    longest = max(len(conversation.input_ids) for conversation in checks)
    batch = max(1, LOGITS_ALIVE // (longest * model.config.get_text_config().vocab_size))
    total = 0.0
    for begin in range(0, len(checks), batch):
        some = checks[begin : begin + batch]
        ids = torch.tensor([c.input_ids + [0] * (longest - len(c.input_ids)) for c in some], device=model.device)
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits.float()
        logprobs = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        for row, conversation in enumerate(some):
            turn = slice(conversation.last_turn - 1, len(conversation.input_ids) - 1)
            total += float(logprobs[row, turn].sum().exp())
    return total / len(checks)


class Reporter(TrainerCallback):
    """Says how far the training is, and ends it once the check is passed."""

    def __init__(self, steps: int, checks: Sequence[Conversation], stop_accuracy: float | None) -> None:
        self._steps = steps
        self._checks = checks
        self._stop_accuracy = stop_accuracy
        self._reached = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Every few steps, and after the last."""
        step = state.global_step
        if step % CHECK_EVERY and step < self._steps:
            return
        words = f"{PROGRESS} step {step} of at most {self._steps}"
        if self._stop_accuracy is not None:
            model.eval()
            self._reached = accuracy(model, self._checks)
            model.train()
            words += f", accuracy {self._reached:.2f} of {self._stop_accuracy:.2f}"
            control.should_training_stop |= self._reached >= self._stop_accuracy
        print(words, flush=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """What came of it."""
        words = f"{DONE} {state.global_step} steps"
        if self._stop_accuracy is not None:
            words += f", accuracy {self._reached:.2f}"
            if self._reached < self._stop_accuracy:
                words += (
                    f", short of warm_start.stop_accuracy {self._stop_accuracy}: the policy may have little to start "
                    "from; raise warm_start.steps"
                )
        print(words, flush=True)


def train(job: WarmStartJob, conversations: Sequence[Conversation], checks: Sequence[Conversation]) -> None:
    """Train on ``conversations`` until the check or the step limit ends it; write model and tokenizer to
    ``job.output``."""
    logging.disable_progress_bar()
    model: Any = AutoModelForCausalLM.from_pretrained(
        job.model, dtype=torch.float32, trust_remote_code=job.trust_remote_code
    )
    freeze_rotary(model, job.rollout.max_context)
    trainer = _trainer(job, model, conversations)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Reporter(job.config.steps, checks, job.config.stop_accuracy))
    trainer.train()
    write_model(model, Path(job.output), generation_config(job.model))
    # afresh: the trainer gives a tokenizer without a padding token one
    AutoTokenizer.from_pretrained(job.model, trust_remote_code=job.trust_remote_code).save_pretrained(job.output)


def _trainer(job: WarmStartJob, model: Any, conversations: Sequence[Conversation]) -> SFTTrainer:
    config = job.config
    on_gpu = torch.cuda.is_available()
    settings = SFTConfig(
        output_dir=job.output,
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.lr,
        lr_scheduler_type="linear",
        warmup_steps=config.steps // 20,
        seed=job.seed,
        bf16=on_gpu,
        use_cpu=not on_gpu,
        gradient_checkpointing=on_gpu,
        dataloader_pin_memory=on_gpu,
        dataset_kwargs={"skip_prepare_dataset": True},
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    return SFTTrainer(
        model=model,
        args=settings,
        train_dataset=Dataset.from_list([{"input_ids": c.input_ids, "labels": c.labels} for c in conversations]),
        processing_class=AutoTokenizer.from_pretrained(job.model, trust_remote_code=job.trust_remote_code),
    )
