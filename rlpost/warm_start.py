"""The warm start: supervised training with TRL's SFTTrainer, in a process of its own, before any actor starts.

Here is the parent's side: the recipe's keys, the job handed over, progress, and errors in words. The child's side is
warm_start_worker.py. Left out: evaluating what was learned (the run does, right after).
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rlpost.faults import RunError
from rlpost.reward.packages import Package
from rlpost.reward.plugins import Plugin, packages
from rlpost.rollout.config import RolloutConfig
from rlpost.rollout.diffusion.config import DiffusionConfig
from rlpost.rollout.vllm.config import intel_openmp

PROGRESS = "warm start:"
"""Lines of the child that start with this are for the user, while it is at work."""
DONE = "warm start done:"
"""The same for the one line that says what came of it."""
LOG_LINES = 15


class WarmStartConfig(BaseModel):
    """Supervised training before reinforcement learning: TRL's SFTTrainer; of masked-diffusion models our own."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    data: str = Field(
        "env",
        description="env: the environment's demonstrations; or a JSONL, JSON or parquet file, or a Hugging Face data "
        "set, with a column 'messages'",
    )
    examples: int = Field(4096, ge=1, description="demonstrations asked of the environment; no effect on a file")
    steps: int = Field(200, ge=1, description="optimizer steps, at most")
    batch_size: int = Field(64, ge=1, description="conversations an optimizer step")
    lr: float = Field(1e-5, gt=0, description="peak learning rate: reached after 5 % of the steps, then linear to 0")
    stop_accuracy: float | None = Field(
        None,
        gt=0,
        le=1,
        description="end once the model, sampling at temperature 1, writes the last turn of held-out conversations (of "
        "a file: the last tenth, at most 128) exactly with this mean probability",
    )


@dataclass(frozen=True, slots=True)
class WarmStartJob:
    """All the child needs; travels as a pickle.

    Attributes:
        config: the recipe's ``warm_start`` section.
        model: folder to start from; ``output``: folder to write to.
        data: file or data set of conversations, or None for the environment's own; see ``locate_data``.
        env, env_options: the environment.
        rollout: the recipe's ``rollout`` section: conversations become tokens exactly as episodes do.
        trust_remote_code: for model and tokenizer.
        seed: the run's seed.
        diffusion: how responses are filled where the model is a masked-diffusion one.
    """

    config: WarmStartConfig
    model: str
    output: str
    data: str | None
    env: Plugin
    env_options: dict[str, Any]
    rollout: RolloutConfig
    trust_remote_code: bool
    seed: int
    diffusion: DiffusionConfig | None = None


def locate_data(name: str, folder: Path) -> str | None:
    """``warm_start.data`` as a job wants it: None for "env", a path below ``folder`` if there is one, else as it is."""
    if name == "env":
        return None
    return str(folder / name) if (folder / name).exists() else name


def warm_start(
    job: WarmStartJob,
    on_progress: Callable[[str], None],
    on_done: Callable[[str], None] | None = None,
    silence_s: float = 600.0,
) -> Path:
    """Train; the folder of the warm-started model.

    Args:
        job: what to train on what.
        on_progress: called with a line for the user every few steps.
        on_done: called once, with a line on steps taken and accuracy reached; default: ``on_progress``.
        silence_s: a child that says nothing for this long is taken for dead.

    Raises:
        RunError: bad data, or the child died or hung; the message has its own words or its last lines.
    """
    output = Path(job.output)
    output.mkdir(parents=True, exist_ok=True)
    request, log = output / "job.pickle", output / "warm_start.log"
    request.write_bytes(pickle.dumps(job))
    with log.open("w") as errors:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "rlpost.warm_start_worker", str(request)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | _environment(packages(job.env, job.env_options)),
        )
        try:
            for line in _lines(child, silence_s):
                if line.startswith(PROGRESS):
                    on_progress(line.strip())
                elif line.startswith(DONE):
                    (on_done or on_progress)(line.strip())
        except queue.Empty:
            raise RunError(f"warm_start: no sign of life for {silence_s:.0f} s.{_last_lines(log)}") from None
        finally:
            child.kill()
            child.wait()
            request.unlink()
    if child.returncode:
        raise RunError(f"warm_start: {_reason(log, child.returncode)}")
    return output


def _lines(child: subprocess.Popen[str], silence_s: float) -> Iterator[str]:
    """The child's lines as they come, to its end. Raises queue.Empty where the next is not there in ``silence_s``."""
    assert child.stdout is not None
    stream = child.stdout
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in stream:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, name="warm-start-output", daemon=True).start()
    while (line := lines.get(timeout=silence_s)) is not None:
        yield line
    with contextlib.suppress(subprocess.TimeoutExpired):  # one that hangs at its very end is killed by the caller
        child.wait(timeout=30)


def _reason(log: Path, returncode: int) -> str:
    """The child's own words where it found any, else its last lines."""
    text = log.read_text(errors="replace")
    said = [line.removeprefix(PROGRESS).strip() for line in text.splitlines() if line.startswith(PROGRESS)]
    if said:
        return said[-1]
    how = f"ended by signal {-returncode}" if returncode < 0 else f"ended with exit status {returncode}"
    return f"its process {how}.{_last_lines(log)}"


def _last_lines(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
    return f" Last lines of {log}:\n" + "\n".join("    " + line for line in lines) if lines else " It wrote nothing."


def _environment(code: Sequence[Package]) -> dict[str, str]:
    """One GPU at most, two OpenMP threads on Intel's runtime (the GNU one collapses when cores are shared), this
    very rlpost, installed or not, and the user's own code."""
    here = str(Path(__file__).absolute().parents[1])
    own = sorted({str(package.copy.parent) for package in code})
    values = {
        "OMP_NUM_THREADS": str(min(2, os.cpu_count() or 1)),
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],
        "PYTHONPATH": os.pathsep.join(filter(None, [here, *own, os.environ.get("PYTHONPATH", "")])),
    }
    openmp = intel_openmp()
    return values | ({"LD_PRELOAD": str(openmp), "KMP_BLOCKTIME": "1"} if openmp else {})
