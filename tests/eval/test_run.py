"""A whole evaluation on real Ray workers: numbers, going on after an end, failures, comparison.

The engine here knows sums (and, from its seed, gets some wrong); test_vllm.py has the real one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlpost.eval import run as evaluation
from rlpost.eval.benchmark import EvalError
from rlpost.eval.compare import compare
from rlpost.eval.samples import SAMPLES, Sample, read_samples
from rlpost.faults import RunError

Run = Callable[..., dict[str, Any]]


def numbers(results: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = results["benchmarks"]
    return found


def test_numbers_follow_from_the_samples(run_eval: Run, sums: Path, tmp_path: Path) -> None:
    results = run_eval(sums, n=4, k=(1, 2, 4))["benchmarks"]["sums"]
    samples = list(read_samples(tmp_path / "out").values())
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
    assert results["ci95"][0] < results["score"] < results["ci95"][1]
    assert (results["questions"], results["n"], results["failed"]) == (12, 4, 0.0)
    assert results["tokens"] == sum(sample.tokens for sample in samples)
    assert results["stops"] == {"done": 48}
    assert "majority@4" not in results  # this reward names no answers
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


def test_any_number_of_workers_gives_the_same_samples(run_eval: Run, sums: Path, tmp_path: Path) -> None:
    one = run_eval(sums, n=3, out="one")
    three = run_eval(sums, "rollout.workers=3", n=3, out="three")
    assert numbers(one) == numbers(three)
    assert (tmp_path / "one" / SAMPLES).read_text() == (tmp_path / "three" / SAMPLES).read_text()
    assert {path.name for path in (tmp_path / "one").iterdir()} == {
        "eval.json",
        "tasks.jsonl",
        "samples.jsonl",
        "results.json",
        "report.html",
    }


def test_an_interrupted_evaluation_goes_on_and_ends_with_the_same_numbers(
    run_eval: Run, sums: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_eval(sums, n=4, out="whole")
    add, seen = evaluation.SampleFile.add, []

    def stop_after_ten(file: Any, sample: Sample) -> None:
        add(file, sample)
        seen.append(sample)
        if len(seen) == 10:
            raise KeyboardInterrupt

    monkeypatch.setattr(evaluation.SampleFile, "add", stop_after_ten)
    with pytest.raises(KeyboardInterrupt):
        run_eval(sums, n=4, out="cut")
    monkeypatch.setattr(evaluation.SampleFile, "add", add)
    path = tmp_path / "cut" / SAMPLES
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 10
    path.write_text("".join(lines[:9]) + lines[9][:40])  # killed in the middle of a line
    assert not (tmp_path / "cut" / "results.json").exists()
    resumed = run_eval(sums, n=4, out="cut")
    assert resumed["samples_played"] == 48 - 9
    assert numbers(resumed) == numbers(whole)
    assert path.read_text() == (tmp_path / "whole" / SAMPLES).read_text()
    again = run_eval(sums, n=4, out="cut")  # nothing is missing: nothing is started
    assert again["samples_played"] == 0
    assert numbers(again) == numbers(whole)


def test_a_part_draws_what_the_whole_draws(run_eval: Run, sums: Path, tmp_path: Path) -> None:
    run_eval(sums, n=2, limit=5, out="part")
    run_eval(sums, n=4, out="whole")
    part, whole = read_samples(tmp_path / "part"), read_samples(tmp_path / "whole")
    assert len(part) == 10
    assert all(whole[key] == sample for key, sample in part.items())


def test_a_folder_holds_one_evaluation(run_eval: Run, sums: Path) -> None:
    run_eval(sums, n=2)
    with pytest.raises(EvalError, match=r"holds another evaluation: seed was 0 and is now 7\. Give another --out"):
        run_eval(sums, n=2, seed=7)
    run_eval(sums, "rollout.workers=2", n=2, k=(2,))  # neither changes what is sampled


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


def test_many_failures_end_it_with_the_reason(run_eval: Run, sums: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"of \d+ episodes failed twice each.*the engine cannot add"):
        run_eval(sums, build="failing")
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_broken_reward_ends_it_at_once(run_eval: Run, tmp_path: Path, sums: Path) -> None:
    sums.write_text(sums.read_text().replace('str(task["a"]', 'str(task["nothing"]'))
    with pytest.raises(RunError, match=r"task 1\+0: .*reward.* raised on task '1\+0': KeyError: 'nothing'"):
        run_eval(sums)


def test_two_evaluations_are_compared_question_by_question(run_eval: Run, sums: Path, tmp_path: Path) -> None:
    run_eval(sums, n=4, out="a")
    run_eval(sums, n=4, out="b", build="always_right")
    (found,) = compare(tmp_path / "a", tmp_path / "b")
    a = json.loads((tmp_path / "a" / "results.json").read_text())["benchmarks"]["sums"]["score"]
    assert (found.bench, found.questions, found.second) == ("sums", 12, 1.0)
    assert found.difference == pytest.approx(1.0 - a)
    assert found.low < found.difference < found.high
    assert (found.better > 0, found.worse) == (True, 0)
    same = compare(tmp_path / "a", tmp_path / "a")[0]
    assert (same.difference, same.low, same.high, same.better, same.worse) == (0.0, 0.0, 0.0, 0, 0)


def test_what_cannot_be_compared(run_eval: Run, sums: Path, tmp_path: Path) -> None:
    run_eval(sums, out="a")
    other = tmp_path / "others.py"
    other.write_text(sums.read_text())
    run_eval(other, out="b")
    with pytest.raises(EvalError, match="no benchmark in common: sums and others"):
        compare(tmp_path / "a", tmp_path / "b")
    with pytest.raises(EvalError, match=r"has no results\.json"):
        compare(tmp_path / "a", tmp_path)
    run_eval(sums, out="one", limit=1)
    with pytest.raises(EvalError, match="share 1 questions; at least 2"):
        compare(tmp_path / "a", tmp_path / "one")


def test_an_environment_is_a_benchmark_and_scenarios_count_whole(run_eval: Run, tmp_path: Path) -> None:
    bench = tmp_path / "world.py"
    bench.write_text(
        "from envs.base import Env, Observation, Score, Task\n\n\n"
        "class Environment(Env):\n"
        "    @classmethod\n"
        "    def tasks(cls, split, seed):\n"
        "        sums = [(1, 1), (1, 2), (2, 1), (2, 2)]\n"
        "        return [Task(f'{a}+{b}', {'a': a, 'b': b}, scenario=f's{a}') for a, b in sums]\n\n"
        "    def start(self):\n"
        "        self.said = []\n"
        "        return [{'role': 'user', 'content': '{a}+{b}=?'.format(**self.task.data)}]\n\n"
        "    def step(self, text):\n"
        "        self.said.append(text)\n"
        "        return Observation('0+0=?', done=len(self.said) == 2)\n\n"
        "    def score(self):\n"
        "        a, b = self.task.data['a'], self.task.data['b']\n"
        "        return Score(float(self.said == [str(a + b), '0'] and (a, b) != (2, 2)))\n"
    )
    found = run_eval(bench, "rollout.max_turns=3", build="always_right")["benchmarks"]["world"]
    assert found["score"] == 0.75
    assert (found["sgc"]["value"], found["scenarios"]) == (0.5, 2)
    samples = read_samples(tmp_path / "out")
    assert samples["world", "1+2", 0].text.count("0+0=?") == 1


def test_base_prompts_stop_at_a_text(run_eval: Run, sums: Path, tmp_path: Path) -> None:
    sums.write_text(sums.read_text() + '\nbase_prompt = "Q: {a}+{b}=?\\nA:"\nstop = "\\nQ:"\n')
    found = run_eval(sums, prompts="base", build="going_on", max_new_tokens=40)["benchmarks"]["sums"]
    assert found["score"] == 1.0
    assert (found["truncated"], found["stops"]) == (0.0, {"done": 12})
    assert {sample.text for sample in read_samples(tmp_path / "out").values()} == {str(i) for i in range(1, 7)}
