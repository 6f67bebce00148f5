"""The rules of the code base that a program can hold: layers, import circles, one import name, who imports what.

Each rule is a function of a root folder that returns what breaks it, so that a small bad tree shows that it can fail.
Left out: what ruff and mypy hold already. ``python tests/test_layers.py`` prints the size of the code.
"""

from __future__ import annotations

import ast
import functools
import graphlib
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("reward", "envs", "rollout", "algorithms", "rlpost")
"""Lowest first; an import may only go to the same layer or to one further left."""
WITHOUT_RAY = ("reward", "envs", "algorithms")
MAX_FUNCTION_LINES = 60
HOSTS = ("pypi" + ".org", "files." + "pythonhosted.org", "registry." + "npmjs.org", "deb." + "debian.org")


def sources(root: Path) -> dict[str, Path]:
    """Every source file by the dotted name it is imported by; a package is named like its folder."""
    found = {}
    for layer in LAYERS:
        # The runtime's own folder also holds links to the layers below it, which pathlib does not follow here.
        for path in sorted((root / layer).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            parts = parts if layer == "rlpost" else ("rlpost", *parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def layer_of(module: str) -> str | None:
    """The layer that a dotted module name belongs to, if it is one of ours."""
    first, *rest = module.split(".")
    if first != "rlpost":
        return None
    return rest[0] if rest and rest[0] in LAYERS else "rlpost"


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file, read once a test session."""
    return ast.parse(path.read_text())


def imports(path: Path, module: str) -> Iterator[tuple[str, list[str], int]]:
    """Every import of a file, local ones included: (module, names taken from it, line)."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, [], node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            yield ".".join([*base, *([node.module] if node.module else [])]), [a.name for a in node.names], node.lineno


def imports_going_up(root: Path) -> list[str]:
    """Imports from a higher layer."""
    broken = []
    for module, path in sources(root).items():
        for target, names, line in imports(path, module):
            for one in [f"{target}.{name}" for name in names] if target == "rlpost" else [target]:
                above = layer_of(one)
                if above is not None and LAYERS.index(above) > LAYERS.index(layer_of(module) or ""):
                    broken.append(f"{path.relative_to(root)}:{line} imports {one}, a layer above")
    return broken


def bare_names(root: Path) -> list[str]:
    """Imports of a layer by its folder's name: a user's own ``reward.py`` or ``envs/`` would take its place."""
    folders = {*LAYERS, "benchmarks", "recipes"} - {"rlpost"}
    broken = []
    for path in sorted(path for folder in {*LAYERS, "benchmarks", "tests"} for path in (root / folder).rglob("*.py")):
        for target, _, line in imports(path, ".".join(path.relative_to(root).with_suffix("").parts)):
            if target.split(".")[0] in folders:
                broken.append(f"{path.relative_to(root)}:{line} imports {target}; say rlpost.{target}")
    return broken


def import_circles(root: Path) -> list[str]:
    """Circles of imports between files."""
    files = sources(root)
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        targets = set()
        for target, names, _ in imports(path, module):
            submodules = {f"{target}.{name}" for name in names} & files.keys()
            targets |= submodules if submodules and len(submodules) == len(names) else submodules | {target}
        graph[module] = (targets & files.keys()) - {module}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [" -> ".join(reversed(error.args[1]))]
    return []


def misplaced_imports(root: Path) -> list[str]:
    """vllm outside rollout/vllm, and ray in the layers that know no Ray."""
    broken = []
    for module, path in sources(root).items():
        for target, _, line in imports(path, module):
            top, layer = target.split(".")[0], layer_of(module)
            inside_adapter = module == "rlpost.rollout.vllm" or module.startswith("rlpost.rollout.vllm.")
            if (top == "vllm" and not inside_adapter) or (top == "ray" and layer in WITHOUT_RAY):
                broken.append(f"{path.relative_to(root)}:{line} imports {target}")
    return broken


def files_without_docstring(root: Path) -> list[str]:
    """Files that do not open by saying what lives there."""
    return [str(path) for path in sources(root).values() if not ast.get_docstring(parsed(path))]


def function_lengths(root: Path) -> dict[str, int]:
    """Lines of every function and method, its docstring included, decorators not."""
    lengths = {}
    for path in sources(root).values():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                place = f"{path.relative_to(root)}:{node.lineno} {node.name}"
                lengths[place] = (node.end_lineno or node.lineno) - node.lineno + 1
    return lengths


def long_functions(root: Path) -> list[str]:
    """Functions above the limit."""
    lengths = function_lengths(root)
    return [f"{place}: {lines} lines" for place, lines in lengths.items() if lines > MAX_FUNCTION_LINES]


def named_hosts(root: Path) -> list[str]:
    """Files that name the host of a package registry: where packages come from is the user's own setting."""
    broken = []
    for path in _project_files(root):
        text = path.read_text(errors="ignore")
        broken += [f"{path.relative_to(root)} names {host}" for host in HOSTS if host in text]
    return broken


def _project_files(root: Path) -> list[Path]:
    """What git tracks or would track; without git, everything that is not hidden."""
    if (root / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
        paths = [root / name for name in listed.split("\0") if name]
    else:
        paths = [p for p in root.rglob("*") if not any(part.startswith(".") for part in p.relative_to(root).parts)]
    return [path for path in paths if path.is_file()]


RULES: list[Callable[[Path], list[str]]] = [
    imports_going_up,
    import_circles,
    bare_names,
    misplaced_imports,
    files_without_docstring,
    long_functions,
    named_hosts,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_rules_hold(rule: Callable[[Path], list[str]]) -> None:
    broken = rule(ROOT)
    assert not broken, "\n".join(broken)


BAD_TREES = {
    "imports_going_up": {"reward/a.py": "def f():\n    from rlpost.cli import main\n    return main\n"},
    "import_circles": {"envs/a.py": "from rlpost.envs import b\n", "envs/b.py": "def f():\n    import rlpost.envs.a\n"},
    "bare_names": {"tests/test_a.py": "def f():\n    from envs.base import Env\n    return Env\n"},
    "misplaced_imports": {"rollout/worker.py": "import vllm.config\n"},
    "files_without_docstring": {"algorithms/a.py": "x = 1\n"},
    "long_functions": {"rollout/a.py": "def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES},
    "named_hosts": {"docs/install.md": f"fetched from https://{HOSTS[0]}/simple"},
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_broken_rule_is_seen(rule: Callable[[Path], list[str]], tmp_path: Path) -> None:
    for name, text in BAD_TREES[rule.__name__].items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert len(rule(tmp_path)) == 1


def test_relative_imports_and_ray_are_seen(tmp_path: Path) -> None:
    for name, text in {"a.py": "from . import b\n", "b.py": "from .a import x\n", "c.py": "import ray\n"}.items():
        (tmp_path / "envs").mkdir(exist_ok=True)
        (tmp_path / "envs" / name).write_text(text)
    assert import_circles(tmp_path) in (
        ["rlpost.envs.a -> rlpost.envs.b -> rlpost.envs.a"],
        ["rlpost.envs.b -> rlpost.envs.a -> rlpost.envs.b"],
    )
    assert misplaced_imports(tmp_path) == ["envs/c.py:1 imports ray"]


def test_the_lowest_layer_is_light() -> None:
    """Sandbox children and vLLM's plugins import it: neither torch nor Ray nor the runtime comes along."""
    modules = [
        "rlpost.reward",
        *(f"rlpost.reward.{name}" for name in ("sandbox", "plugins", "functions", "math", "code")),
    ]
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert not {"torch", "ray", "transformers", "vllm", "datasets"} & set(said.split())
    assert [name for name in said.split() if name.startswith("rlpost.") and not name.startswith("rlpost.reward")] == []


def print_size(root: Path) -> None:
    """For a reader: lines by layer, median file, the longest files and functions."""
    lines = {str(path.relative_to(root)): len(path.read_text().splitlines()) for path in sources(root).values()}
    functions = function_lengths(root)
    for layer in LAYERS:
        print(f"{layer:12}{sum(count for name, count in lines.items() if name.startswith(layer + '/')):6} lines")
    print(f"{len(lines)} files, median {statistics.median(lines.values()):.0f} lines, {sum(lines.values())} in all")
    for name, sizes in {"files": lines, "functions": functions}.items():
        print(f"longest {name}:", *sorted(sizes, key=lambda place: -sizes[place])[:5], sep="\n  ")


if __name__ == "__main__":
    print_size(ROOT)
