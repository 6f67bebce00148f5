"""A whole evaluation on real Ray workers: numbers, going on after an end, failures, comparison.

The engine here knows sums (and, from its seed, gets some wrong); test_vllm.py has the real one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rlpost.eval import run as evaluation
from rlpost.eval.benchmark import EvalError
from rlpost.eval.compare import compare, print_comparison
from rlpost.eval.results import read_results
from rlpost.eval.samples import SAMPLES, Sample, read_samples, write_sorted
from rlpost.faults import RunError

Run = Callable[..., dict[str, Any]]


def numbers(results: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = results["benchmarks"]
    return found


def test_numbers_follow_from_the_samples(whole: Path) -> None:
    results = read_results(whole)["benchmarks"]["sums"]
    samples = list(read_samples(whole).values())
    right = {}
    for sample in samples:
        right[sample.task] = right.get(sample.task, 0) + sample.right
        assert sample.right == (sample.text == str(eval(sample.task)))
    assert len(samples) == 48
    assert list(right) == [f"{a}+{b}" for a in range(1, 4) for b in range(4)]  # in the benchmark's order
    assert 0 < sum(right.values()) < 48
    assert results["score"] == pytest.approx(sum(right.values()) / 48)
    assert results["pass@1"]["value"] == pytest.approx(results["score"])
    assert results["pass@4"]["value"] == pytest.approx(sum(count > 0 for count in right.values()) / 12)
    assert results["pass@1"]["value"] < results["pass@2"]["value"] < results["pass@4"]["value"]
    assert (results["score"], results["ci95"]) == (results["pass@1"]["value"], results["pass@1"]["ci95"])
    assert results["ci95"][0] < results["score"] < results["ci95"][1]
    assert (results["questions"], results["n"], results["failed"]) == (12, 4, 0.0)
    assert results["tokens"] == sum(sample.tokens for sample in samples)
    assert results["stops"] == {"done": 48}
    assert "majority@4" not in results  # this reward names no answers
    assert (whole / "report.html").stat().st_size > 10_000


def test_any_number_of_workers_gives_the_same_samples(run_eval: Run, sums: Path, whole: Path, tmp_path: Path) -> None:
    three = run_eval(sums, "rollout.workers=3", n=4, k=(1, 2, 4), out="three")
    assert numbers(read_results(whole)) == numbers(three)
    assert (whole / SAMPLES).read_text() == (tmp_path / "three" / SAMPLES).read_text()
    assert {path.name for path in (tmp_path / "three").iterdir()} == {
        "eval.json",
        "tasks.jsonl",
        "samples.jsonl",
        "results.json",
        "report.html",
    }


def test_an_interrupted_evaluation_goes_on_and_ends_with_the_same_numbers(
    run_eval: Run, sums: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"n": 4, "k": (1, 2, 4), "out": "cut"}
    add, seen = evaluation.SampleFile.add, []

    def stop_after_ten(file: Any, sample: Sample) -> None:
        add(file, sample)
        seen.append(sample)
        if len(seen) == 10:
            raise KeyboardInterrupt

    monkeypatch.setattr(evaluation.SampleFile, "add", stop_after_ten)
    with pytest.raises(KeyboardInterrupt):
        run_eval(sums, **told)
    monkeypatch.setattr(evaluation.SampleFile, "add", add)
    path = tmp_path / "cut" / SAMPLES
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 10
    path.write_text("".join(lines[:9]) + lines[9][:40])  # killed in the middle of a line
    assert not (tmp_path / "cut" / "results.json").exists()
    resumed = run_eval(sums, **told)
    assert resumed["samples_played"] == 48 - 9
    assert numbers(resumed) == numbers(read_results(whole))
    assert path.read_text() == (whole / SAMPLES).read_text()
    again = run_eval(sums, **told)  # nothing is missing: nothing is started
    assert again["samples_played"] == 0
    assert numbers(again) == numbers(resumed)


@pytest.mark.slow
def test_a_part_draws_what_the_whole_draws(run_eval: Run, sums: Path, whole: Path, tmp_path: Path) -> None:
    run_eval(sums, n=2, limit=5, out="part")
    part, all_of_it = read_samples(tmp_path / "part"), read_samples(whole)
    assert len(part) == 10
    assert all(all_of_it[key] == sample for key, sample in part.items())


def test_a_folder_holds_one_evaluation(run_eval: Run, sums: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "out")
    with pytest.raises(EvalError, match=r"holds another evaluation: seed was 0 and is now 7\. Give another --out"):
        run_eval(sums, n=4, seed=7)
    kept = run_eval(sums, "rollout.workers=2", n=4, k=(2,))  # neither changes what is sampled: nothing is started
    assert kept["samples_played"] == 0
    (tmp_path / "out" / "eval.json").unlink()
    with pytest.raises(EvalError, match=r"holds samples but no eval\.json"):
        run_eval(sums, n=4)


@pytest.mark.slow
def test_a_failed_episode_is_played_again_and_then_counts_as_wrong(run_eval: Run, sums: Path, tmp_path: Path) -> None:
    results = run_eval(sums, build="failing_on_one_sum")["benchmarks"]["sums"]
    samples = read_samples(tmp_path / "out")
    (failed,) = [sample for sample in samples.values() if sample.error]
    assert (failed.task, failed.right, failed.reward, failed.stop) == ("2+2", False, 0.0, "engine_failed")
    assert "the engine cannot add 2+2" in failed.error
    assert results["failed"] == pytest.approx(1 / 12)
    healed = run_eval(sums)  # the next sitting plays it again
    assert healed["samples_played"] == 1
    assert healed["benchmarks"]["sums"]["failed"] == 0.0


@pytest.mark.slow
def test_many_failures_end_it_with_the_reason(run_eval: Run, sums: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"of \d+ episodes failed twice each.*the engine cannot add"):
        run_eval(sums, build="failing")
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_broken_reward_ends_it_at_once(run_eval: Run, tmp_path: Path, sums: Path) -> None:
    sums.write_text(sums.read_text().replace('str(task["a"]', 'str(task["nothing"]'))
    with pytest.raises(RunError, match=r"task \d\+\d: .*reward.* raised on task '.*': KeyError: 'nothing'"):
        run_eval(sums)


def test_two_evaluations_are_compared_question_by_question(whole: Path, tmp_path: Path) -> None:
    better = tmp_path / "better"
    shutil.copytree(whole, better)
    first = list(read_samples(whole).values())
    write_sorted(better, [replace(sample, right=True) for sample in first if sample.task != "1+0"])
    (found,) = compare(whole, better)
    shared = [sample for sample in first if sample.task != "1+0"]
    share = sum(sample.right for sample in shared) / len(shared)
    assert (found.bench, found.questions, found.first, found.second) == ("sums", 11, pytest.approx(share), 1.0)
    assert found.difference == pytest.approx(1.0 - share)
    assert found.low < found.difference < found.high
    assert (found.better > 0, found.worse) == (True, 0)
    same = compare(whole, whole)[0]
    assert (same.difference, same.low, same.high, same.better, same.worse) == (0.0, 0.0, 0.0, 0, 0)
    console = Console(record=True, width=100)
    print_comparison([found], console)
    assert f"{100 * found.difference:+.1f}" in console.export_text()


def test_what_cannot_be_compared(whole: Path, tmp_path: Path) -> None:
    samples = list(read_samples(whole).values())
    for name, kept in {
        "other": [replace(sample, bench="others") for sample in samples],
        "one": [sample for sample in samples if sample.task == "1+0"],
    }.items():
        shutil.copytree(whole, tmp_path / name)
        write_sorted(tmp_path / name, kept)
    with pytest.raises(EvalError, match="no benchmark in common: sums and others"):
        compare(whole, tmp_path / "other")
    with pytest.raises(EvalError, match=r"has no results\.json"):
        compare(whole, tmp_path)
    with pytest.raises(EvalError, match="share 1 questions; at least 2"):
        compare(whole, tmp_path / "one")


def test_an_environment_is_a_benchmark_and_scenarios_count_whole(run_eval: Run, tmp_path: Path) -> None:
    bench = tmp_path / "world.py"
    bench.write_text(
        "from rlpost.envs.base import Env, Observation, Score, Task\n\n\n"
        "class Environment(Env):\n"
        "    @classmethod\n"
        "    def tasks(cls, split, seed):\n"
        "        sums = [(1, 1), (1, 2), (2, 1), (2, 2)]\n"
        "        return [Task(f'{a}+{b}', {'a': a, 'b': b}, scenario=f's{a}', difficulty=a) for a, b in sums]\n\n"
        "    def start(self):\n"
        "        self.said = []\n"
        "        return [{'role': 'user', 'content': '{a}+{b}=?'.format(**self.task.data)}]\n\n"
        "    def step(self, text):\n"
        "        self.said.append(text)\n"
        "        return Observation('0+0=?', done=len(self.said) == 2)\n\n"
        "    def score(self):\n"
        "        a, b = self.task.data['a'], self.task.data['b']\n"
        "        return Score(float(self.said == [str(a + b), '0'] and (a, b) != (2, 2)))\n\n"
        "    def metrics(self):\n"
        "        return {'turns': len(self.said)}\n"
    )
    found = run_eval(bench, "rollout.max_turns=3", build="always_right")["benchmarks"]["world"]
    assert found["score"] == 0.75
    assert (found["sgc"]["value"], found["scenarios"]) == (0.5, 2)
    assert found["goals"] == {
        "tgc": 0.75,
        "sgc": 0.5,
        "tgc/difficulty_1": 1.0,
        "sgc/difficulty_1": 1.0,
        "tgc/difficulty_2": 0.5,
        "sgc/difficulty_2": 0.0,
    }
    assert found["env"] == {"turns": 2.0}
    samples = read_samples(tmp_path / "out")
    assert samples["world", "1+2", 0].text.count("0+0=?") == 1


@pytest.mark.slow
def test_base_prompts_stop_at_a_text(run_eval: Run, sums: Path, tmp_path: Path) -> None:
    sums.write_text(sums.read_text() + '\nbase_prompt = "Q: {a}+{b}=?\\nA:"\nstop = "\\nQ:"\n')
    found = run_eval(sums, prompts="base", build="going_on", max_new_tokens=40)["benchmarks"]["sums"]
    assert found["score"] == 1.0
    assert (found["truncated"], found["stops"]) == (0.0, {"done": 12})
    assert {sample.text for sample in read_samples(tmp_path / "out").values()} == {str(i) for i in range(1, 7)}
