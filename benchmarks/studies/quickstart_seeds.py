"""The quickstart over several seeds, one after another, and once with a learning rate of 0.

Its table is in docs/quickstart.md:

    rlpost bench quickstart_seeds --out /tmp/seeds

Left out: the random policy's success (a test of the environment measures it on 2,000 episodes).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from rlpost.recipe_files import find_recipe


def play(name: str, out: Path, overrides: list[str]) -> dict:
    """One run from a process of its own; its result.json."""
    command = [sys.executable, "-P", "-m", "rlpost.cli", "train", str(find_recipe("quickstart")), *overrides]
    subprocess.run([*command, "--out", str(out / name)], check=True, stdout=subprocess.DEVNULL)
    return json.loads((out / name / "result.json").read_text())


def row(name: str, result: dict) -> str:
    """A line of the table."""
    before, after, greedy = result["eval_before"], result["eval_after"], result["greedy"]
    low, high = after["ci95"]
    return (
        f"| {name} | {before['success']:.3f} | {after['success']:.3f} [{low:.3f}, {high:.3f}] | "
        f"{after['success'] - before['success']:+.3f} | {greedy['before']['success']:.3f} | "
        f"{greedy['after']['success']:.3f} | {result['wall_s']:.0f} |"
    )


def main() -> None:
    """Run all and print the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--without-lr-0", action="store_true", help="leave out the run with a learning rate of 0")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    print("| seed | sampled before | sampled after | gain | greedy before | greedy after | wall s |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for seed in args.seeds:
        print(row(str(seed), play(f"seed-{seed}", args.out, [f"seed={seed}"])), flush=True)
    if not args.without_lr_0:
        print(row("0, lr 0", play("lr-0", args.out, ["seed=0", "learner.optimizer.lr=0"])), flush=True)


if __name__ == "__main__":
    main()
