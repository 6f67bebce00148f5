"""The command line: train, eval, explain, view, bench, doctor. Reads arguments, turns faults into words and exit codes.

Exit codes: 0 done; 1 the run could not go on; 2 the recipe or the arguments are wrong and nothing was started;
130 interrupted. Heavy imports happen inside the commands, so that mistakes are answered at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

STARTED = time.time()

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Reinforcement-learning post-training of language models: Ray, vLLM, one copy of the model, one recipe.",
)
errors = Console(stderr=True, soft_wrap=True)

RecipePath = Annotated[Path, typer.Argument(help="a recipe's file or name, e.g. quickstart")]
Overrides = Annotated[list[str] | None, typer.Argument(help="dotted.key=value ...", show_default=False)]
Smoke = Annotated[bool, typer.Option("--smoke", help="tiny built-in model and data, CPU, 2 steps")]


def _fail(message: object, code: int) -> NoReturn:
    errors.print(f"[bold red]rlpost:[/] {escape(str(message))}", highlight=False)
    raise typer.Exit(code)


@contextlib.contextmanager
def _faults_in_words() -> Iterator[None]:
    """Recipe mistakes exit 2, faults of the run 1, Ctrl-C 130; anything else is a bug and keeps its traceback."""
    from rlpost.eval.benchmark import EvalError
    from rlpost.faults import RunError
    from rlpost.recipe_source import RecipeError

    try:
        yield
    except (RecipeError, EvalError) as error:
        _fail(error, 2)
    except RunError as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        _fail("interrupted; the actors are ended and the run folder is readable", 130)


def _load(recipe: Path, overrides: list[str] | None, smoke: bool, scratch: Path) -> Any:
    from rlpost.recipe import resolve
    from rlpost.recipe_files import find_recipe
    from rlpost.recipe_source import read
    from rlpost.smoke import shrink

    source = read(find_recipe(recipe), overrides or [])
    if smoke:
        shrink(source, scratch)
    return resolve(source)


@app.command()
def train(
    recipe: Annotated[Path | None, typer.Argument(help="a recipe's file or name, e.g. quickstart")] = None,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="run folder; default runs/RECIPE-TIME")] = None,
    resume: Annotated[Path | None, typer.Option(help="a run folder or checkpoint to go on from")] = None,
    smoke: Smoke = False,
) -> None:
    """Train a model as the recipe says."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    signal.signal(signal.SIGTERM, _interrupt)
    with _faults_in_words():
        if resume is not None:
            _resume(resume, recipe, overrides)
            return
        if recipe is None:
            _fail("give a recipe, or --resume RUN_FOLDER", 2)
        from rlpost.placement import place
        from rlpost.runfolder import create

        target = out or Path("runs") / f"{recipe.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
        loaded = _load(recipe, overrides, smoke, target)
        place(loaded.recipe, rollouts=loaded.has_rollouts)
        folder = create(target)

        from rlpost.train import train as run

        _announce(run(loaded, folder, STARTED), folder.path)


def _resume(path: Path, recipe: Path | None, overrides: list[str] | None) -> None:
    from rlpost.recipe import resolve
    from rlpost.recipe_source import read
    from rlpost.runfolder import reopen
    from rlpost.train import Resume
    from rlpost.train import train as run

    given = [text for text in (str(recipe) if recipe else "", *(overrides or [])) if text]
    folder, steps_done, checkpoint = reopen(path)
    loaded = resolve(read(folder.recipe, given))
    if steps_done >= loaded.recipe.steps:
        _fail(f"{folder.path} has done all its {loaded.recipe.steps} steps; give steps=N to go further", 2)
    _announce(run(loaded, folder, STARTED, Resume(steps_done, checkpoint)), folder.path)


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _announce(result: Any, folder: Path) -> None:
    from rlpost.view import print_result

    print_result(result, folder)


@app.command("eval")
def evaluate(
    model: Annotated[str | None, typer.Argument(help="a model folder or name, a .gguf file, or a run folder")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="engine.KEY=value rollout.KEY=value ...")] = None,
    bench: Annotated[str, typer.Option(help="benchmarks, e.g. gsm8k,math500; your own by its file")] = "",
    n: Annotated[int | None, typer.Option(help="samples a question; default 1")] = None,
    k: Annotated[str | None, typer.Option(help="the k of pass@k, e.g. 1,8; default 1 and n")] = None,
    temperature: Annotated[float | None, typer.Option(help="default: greedy where n is 1, else 1.0")] = None,
    limit: Annotated[int | None, typer.Option(help="only the first so many questions of each benchmark")] = None,
    shots: Annotated[int | None, typer.Option(help="worked examples before each question; default 0")] = None,
    prompts: Annotated[str | None, typer.Option(help="chat or base; default chat")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="tokens an answer may have")] = None,
    seed: Annotated[int | None, typer.Option(help="every random draw derives from it; default 0")] = None,
    data: Annotated[list[str] | None, typer.Option(help="NAME=PATH: its rows; NAME.shots=PATH")] = None,
    workers: Annotated[int | None, typer.Option(help="rollout workers, each an engine of its own; default 1")] = None,
    out: Annotated[Path | None, typer.Option(help="folder; one that was interrupted goes on")] = None,
    compare: Annotated[tuple[Path, Path] | None, typer.Option(help="two evaluations' folders: B minus A")] = None,
) -> None:
    """Evaluate a model on benchmarks, or compare two evaluations question by question."""
    from rlpost.eval.command import compare_folders, run_evaluation, settings_of_options

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    signal.signal(signal.SIGTERM, _interrupt)
    with _faults_in_words():
        if compare is not None:
            compare_folders(*compare)
            return
        given = {"model": model, "n": n, "temperature": temperature, "limit": limit, "shots": shots, "seed": seed}
        given |= {"prompts": prompts, "max_new_tokens": max_new_tokens}
        run_evaluation(settings_of_options(given, bench, k, data or [], workers, overrides or []), out)


@app.command()
def explain(
    recipe: RecipePath,
    overrides: Overrides = None,
    smoke: Smoke = False,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs of a node; default: this machine's")] = None,
    nodes: Annotated[int, typer.Option(min=1, help="nodes with so many GPUs each")] = 1,
) -> None:
    """Print every number that follows from a recipe, without starting anything."""
    with _faults_in_words():
        import tempfile

        with tempfile.TemporaryDirectory() as scratch:
            loaded = _load(recipe, overrides, smoke, Path(scratch))
        from rlpost.explain import print_explanation

        print_explanation(loaded, None if gpus is None else [gpus] * nodes)


@app.command()
def recipes() -> None:
    """List the recipes that come with rlpost; `rlpost train NAME` runs one anywhere."""
    from rlpost.recipe_files import own_recipes, summary

    for path in own_recipes():
        print(f"  {path.stem:26}{summary(path)}")


@app.command()
def view(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    html: Annotated[bool, typer.Option("--html", help="only rebuild report.html and print its path")] = False,
    port: Annotated[int | None, typer.Option(help="also serve the page on 127.0.0.1 at this port")] = None,
) -> None:
    """Show a run in the terminal and (re)build its report.html."""
    from rlpost.view import ViewError
    from rlpost.view import view as show

    try:
        show(run, html, port)
    except ViewError as error:
        _fail(error, 2)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def bench(
    context: typer.Context, name: Annotated[str | None, typer.Argument(help="which one; none: list them")] = None
) -> None:
    """Run a benchmark, in a process of its own; `rlpost bench NAME --help` has its options."""
    import subprocess

    from rlpost.benchmarks import available, benchmark_module

    known = available()
    if name not in known:
        for one, what in known.items():
            errors.print(f"  {one:20}{what}", highlight=False)
        _fail(f"give a benchmark and --out DIR{'' if name in (None, '--help') else f'; there is no {name!r}'}", 2)
    raise typer.Exit(subprocess.call([sys.executable, "-P", "-m", benchmark_module(name), *context.args]))


@app.command()
def doctor(
    appworld: Annotated[
        str | None, typer.Option(help="the Python that AppWorld is installed for: check it alone")
    ] = None,
    appworld_root: Annotated[str, typer.Option(help="the folder that AppWorld's data folder is in")] = ".",
) -> None:
    """Check this machine: what is installed, what it supports, what to do where they disagree."""
    from rlpost.doctor import CHECKS, diagnose, print_report

    checks = CHECKS
    if appworld is not None:
        from rlpost.checks.appworld import check_appworld

        checks = {"AppWorld": lambda: check_appworld(appworld, appworld_root)}
    raise typer.Exit(print_report(diagnose(checks)))


def main() -> None:
    """Entry point of the ``rlpost`` command."""
    # Last, so that a user's `my_env:Mine` is found here and no file of theirs ever stands before an installed package.
    sys.path.append(str(Path.cwd()))
    app()


if __name__ == "__main__":
    main()
