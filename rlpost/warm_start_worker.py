"""The warm start's own process: SFTTrainer on conversations that became tokens exactly as episodes do.

    python -m rlpost.warm_start_worker job.pickle

Left out: checkpoints (a warm start is short), adapters, and several processes (accelerate's launcher is for that).
"""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer

from envs.base import EnvError
from rlpost.warm_start import PROGRESS, WarmStartJob
from rlpost.warm_start_data import Conversation, DataError, load
from rollout.chat import ChatError, load_format

CHECK_EVERY = 10
CHECK_BATCH = 64


@torch.no_grad()
def exact_turns(model: Any, checks: Sequence[Conversation]) -> float:
    """Share of conversations whose last turn the model would write token for token (teacher-forced, greedy)."""
    right = 0
    for begin in range(0, len(checks), CHECK_BATCH):
        some = checks[begin : begin + CHECK_BATCH]
        longest = max(len(conversation.input_ids) for conversation in some)
        ids = torch.tensor([c.input_ids + [0] * (longest - len(c.input_ids)) for c in some], device=model.device)
        guess = model(input_ids=ids, use_cache=False).logits.argmax(-1)[:, :-1] == ids[:, 1:]
        for row, conversation in enumerate(some):
            right += bool(guess[row, conversation.last_turn - 1 : len(conversation.input_ids) - 1].all())
    return right / len(checks)


class Reporter(TrainerCallback):
    """Says how far the training is, and ends it once the check is passed."""

    def __init__(self, steps: int, checks: Sequence[Conversation], stop_accuracy: float | None) -> None:
        self._steps = steps
        self._checks = checks
        self._stop_accuracy = stop_accuracy

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Every few steps, and after the last."""
        step = state.global_step
        if step % CHECK_EVERY and step < self._steps:
            return
        words = f"{PROGRESS} step {step} of at most {self._steps}"
        if self._stop_accuracy is not None:
            model.eval()
            accuracy = exact_turns(model, self._checks)
            model.train()
            words += f", {accuracy:.0%} of the check turns exact"
            control.should_training_stop |= accuracy >= self._stop_accuracy
        print(words, flush=True)


def run(job: WarmStartJob) -> None:
    """Train and save."""
    print(f"{PROGRESS} reading conversations", flush=True)
    rollout = job.rollout
    chat = load_format(job.model, rollout.chat, rollout.observation_tokens, rollout.separator, job.trust_remote_code)
    train, checks = load(job, chat)
    model: Any = AutoModelForCausalLM.from_pretrained(
        job.model, dtype=torch.float32, trust_remote_code=job.trust_remote_code
    )
    trainer = _trainer(job, model, train)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Reporter(job.config.steps, checks, job.config.stop_accuracy))
    trainer.train()
    model.save_pretrained(job.output)
    # afresh: the trainer gives a tokenizer without a padding token one
    AutoTokenizer.from_pretrained(job.model, trust_remote_code=job.trust_remote_code).save_pretrained(job.output)


def _trainer(job: WarmStartJob, model: Any, train: Sequence[Conversation]) -> SFTTrainer:
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
        train_dataset=Dataset.from_list([{"input_ids": c.input_ids, "labels": c.labels} for c in train]),
        processing_class=AutoTokenizer.from_pretrained(job.model, trust_remote_code=job.trust_remote_code),
    )


def main(request: str) -> int:
    """Run the pickled job; 1, with the reason on standard error, where it cannot be done."""
    warnings.filterwarnings("ignore")
    logging.disable_progress_bar()
    job: WarmStartJob = pickle.loads(Path(request).read_bytes())
    try:
        run(job)
    except (DataError, EnvError, ChatError) as error:
        print(f"{PROGRESS} {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
