"""Whether an installation of the real AppWorld can be trained on: package, apps, data, and what one server takes.

A reader looks and a judge decides, as in machine.py. Left out: installing anything.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from rlpost.checks.finding import Finding
from rlpost.envs.appworld_client import Deadlines, RemoteWorld, appworld_servers
from rlpost.envs.appworld_servers import available_memory, slots_for
from rlpost.envs.base import EnvError

DATASETS = ("train", "dev", "test_normal", "test_challenge")
MIB = 1 << 20
_ASK = """
import importlib.util, json, os
from importlib import metadata
spec = importlib.util.find_spec("appworld")
folder = os.path.dirname(spec.origin) if spec else ""
print(json.dumps({"version": metadata.version("appworld") if spec else "",
                  "apps": os.path.isdir(os.path.join(folder, "apps", "supervisor")),
                  "server": importlib.util.find_spec("uvicorn") is not None}))
"""
_INSTALL = (
    "Make an environment of its own: python3.11 -m venv DIR && DIR/bin/pip install appworld && DIR/bin/appworld "
    "install && DIR/bin/appworld download data --root ROOT, then give DIR/bin/python."
)


@dataclass(frozen=True, slots=True)
class Installation:
    """What is there. ``problem`` says why nothing could be found out; ``tasks`` counts ids by data set."""

    python: str
    root: str
    problem: str = ""
    version: str = ""
    apps: bool = False
    server: bool = False
    tasks: dict[str, int] = field(default_factory=dict)


def check_appworld(python: str, root: str) -> list[Finding]:
    """Look, judge, and where all is there start one server on one task; about half a minute then."""
    seen = look(python, root)
    findings = judge_appworld(seen)
    if all(finding.level == "ok" for finding in findings):
        findings.append(_try_server(python, root))
    return findings


def look(python: str, root: str) -> Installation:
    """Ask the interpreter, and count the tasks in the data folder."""
    try:
        asked = subprocess.run([python, "-c", _ASK], capture_output=True, text=True, timeout=60, check=True, cwd="/")
        said = json.loads(asked.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return Installation(python, root, problem=str(error))
    lists = {name: Path(root) / "data" / "datasets" / f"{name}.txt" for name in DATASETS}
    tasks = {name: len(path.read_text().split()) for name, path in lists.items() if path.is_file()}
    return Installation(python, root, version=said["version"], apps=said["apps"], server=said["server"], tasks=tasks)


def judge_appworld(seen: Installation) -> list[Finding]:
    """One finding each on interpreter, package, apps and data, up to the first that is missing."""
    if seen.problem:
        return [Finding("AppWorld: python", seen.problem, f"{seen.python} runs", "problem", _INSTALL)]
    if not (seen.version and seen.server):
        found = seen.version or "not installed"
        return [Finding("AppWorld: package", found, "appworld and uvicorn", "problem", _INSTALL)]
    findings = [Finding("AppWorld: package", seen.version, "any")]
    if not seen.apps:
        advice = f"Its apps come packed: {Path(seen.python).parent / 'appworld'} install"
        return [*findings, Finding("AppWorld: apps", "not unpacked", "unpacked", "problem", advice)]
    findings.append(Finding("AppWorld: apps", "unpacked", "unpacked"))
    missing = [name for name in ("train", "dev") if not seen.tasks.get(name)]
    counts = ", ".join(f"{name} {count}" for name, count in seen.tasks.items()) or "none"
    if missing:
        advice = f"{Path(seen.python).parent / 'appworld'} download data --root {seen.root} (needs a network). "
        advice += "Without it train on our own world: leave env.options.appworld out."
        return [*findings, Finding("AppWorld: data", counts, "train, dev", "problem", advice)]
    return [*findings, Finding("AppWorld: data", counts, "train, dev")]


def _try_server(python: str, root: str) -> Finding:
    servers = appworld_servers(python, root, 1)
    task_id = (Path(root) / "data" / "datasets" / "train.txt").read_text().split()[0]
    try:
        world = RemoteWorld(servers, task_id, "rlpost/doctor", Deadlines(), Path(root) / "experiments" / "outputs")
        one = servers.largest
        world.close()
    except EnvError as error:
        return Finding("AppWorld: server", str(error), "a task starts", "problem", "The lines above are the server's.")
    finally:
        servers.close()
    words = f"one takes {one // MIB} MiB; {slots_for(one, available_memory())} fit"
    return Finding("AppWorld: server", words, "a task starts")
