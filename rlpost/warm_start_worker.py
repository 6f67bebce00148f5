"""The warm start's own process: conversations become tokens, then warm_start_trainer.py trains on them.

    python -m rlpost.warm_start_worker job.pickle

Bad data ends it before torch and TRL are loaded. Left out: anything of the run besides this one model.
"""

from __future__ import annotations

import pickle
import sys
import warnings
from pathlib import Path

from rlpost.envs.base import EnvError
from rlpost.rollout.chat import ChatError, load_format
from rlpost.warm_start import PROGRESS, WarmStartJob
from rlpost.warm_start_data import DataError, load


def run(job: WarmStartJob) -> None:
    """Train and save."""
    print(f"{PROGRESS} reading conversations", flush=True)
    rollout = job.rollout
    chat = load_format(job.model, rollout.chat, rollout.observation_tokens, rollout.separator, job.trust_remote_code)
    conversations, checks = load(job, chat)
    if job.diffusion is None:
        from rlpost.warm_start_trainer import train
    else:
        from rlpost.warm_start_diffusion import train

    train(job, conversations, checks)


def main(request: str) -> int:
    """Run the pickled job; 1, with the reason on standard error, where it cannot be done."""
    warnings.filterwarnings("ignore")
    job: WarmStartJob = pickle.loads(Path(request).read_bytes())
    try:
        run(job)
    except (DataError, EnvError, ChatError) as error:
        print(f"{PROGRESS} {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
