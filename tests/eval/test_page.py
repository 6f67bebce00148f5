"""The evaluation's page: in a real browser it filters by right and wrong, and nothing fails or leaves it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from rlpost.eval.page import build_page
from rlpost.eval.results import summarise, write_results
from rlpost.eval.samples import SAMPLES, TASKS, Sample, write_sorted
from rlpost.eval.settings import EvalSettings
from tests.report.chromium import BINARY, Chromium

HOSTILE = "</script><img src=x onerror=alert(1)> \u202ereversed\x07"


def make_evaluation(folder: Path, questions: int = 30, n: int = 4) -> Path:
    """A finished evaluation of two benchmarks, made up."""
    folder.mkdir(parents=True)
    samples = []
    tasks = []
    for bench in ("gsm8k", "humaneval"):
        for question in range(questions):
            task = f"{bench}-{question}"
            asked = f"Question {question}: how many apples are {question} and {question}?\nThink step by step."
            tasks.append(
                {"bench": bench, "task": task, "messages": [{"role": "user", "content": asked}], "reference": "42"}
            )
            for index in range(n):
                right = (question * 7 + index * 3) % 5 < 2
                text = f"Adding {question} and {question}.\nThe answer is \\boxed{{{2 * question + (not right)}}}."
                samples.append(
                    Sample(
                        bench=bench,
                        task=task,
                        index=index,
                        seed=1000 + index,
                        right=right,
                        reward=float(right),
                        answer=str(2 * question + (not right)),
                        stop="token_limit" if question % 9 == 8 else "done",
                        truncated=question % 9 == 8,
                        tokens=20 + question,
                        text=HOSTILE if question == 3 else text,
                        parts={"unjudged": 0.0},
                    )
                )
    (folder / TASKS).write_text("".join(json.dumps(row) + "\n" for row in tasks))
    write_sorted(folder, samples)
    settings = EvalSettings(model="models/small", bench=("gsm8k", "humaneval"), n=n, k=(1, n), temperature=1.0)
    benches = {
        bench: summarise([sample for sample in samples if sample.bench == bench], settings.k)
        for bench in settings.bench
    }
    write_results(folder, settings, benches, 12.5, samples)
    build_page(folder)
    return folder


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_evaluation(tmp_path_factory.mktemp("evals") / "small-model")


def test_the_page_is_one_file_and_carries_no_markup_of_a_models(evaluation: Path) -> None:
    page = (evaluation / "report.html").read_text()
    assert "onerror" not in page
    assert "default-src 'none'" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page


def test_large_evaluations_are_carried_in_part(evaluation: Path, tmp_path: Path) -> None:
    folder = tmp_path / "large"
    make_evaluation(folder)
    whole = build_page(folder).stat().st_size
    build_page(folder, max_samples=60)
    assert (folder / "report.html").stat().st_size < whole
    long = [Sample(**{**json.loads(line), "text": "x" * 5000}) for line in (folder / SAMPLES).read_text().splitlines()]
    (folder / SAMPLES).write_text("".join(json.dumps(asdict(sample)) + "\n" for sample in long))
    build_page(folder, max_characters=1000 * len(long))


in_a_browser = pytest.mark.skipif(not BINARY.exists(), reason=f"needs {BINARY}")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def page(browser: Chromium, evaluation: Path) -> Chromium:
    browser.open(evaluation / "report.html")
    assert browser.problems == []
    return browser


def count(page: Chromium) -> str:
    return str(page.evaluate("document.getElementById('count').textContent"))


@in_a_browser
def test_filters_by_right_and_wrong(page: Chromium) -> None:
    assert count(page) == "240 answers, 96 right"
    page.evaluate("document.querySelector('input[name=outcome][value=right]').click()")
    assert count(page) == "96 answers, 96 right"
    page.evaluate("document.querySelector('input[name=outcome][value=wrong]').click()")
    assert count(page) == "144 answers, 0 right"
    assert page.evaluate("document.querySelector('#detail h3 [role=img]').getAttribute('aria-label')") == "wrong"
    page.evaluate(
        "(() => { const field = document.querySelector('select[name=bench]'); field.value = 'gsm8k';"
        " field.dispatchEvent(new Event('change')); })()"
    )
    assert count(page) == "72 answers, 0 right"


@in_a_browser
def test_search_marks_what_it_finds(page: Chromium) -> None:
    page.evaluate(
        "(() => { const field = document.querySelector('input[name=text]'); field.value = 'adding 17 ';"
        " field.dispatchEvent(new Event('input')); })()"
    )
    page.wait("document.getElementById('count').textContent === '8 answers, 2 right'")
    assert page.evaluate("document.querySelector('#detail mark').textContent") == "Adding 17 "


@in_a_browser
def test_a_hostile_text_stays_text(page: Chromium) -> None:
    page.evaluate("document.getElementById('row-12').click()")
    shown = page.evaluate("[...document.querySelectorAll('#detail pre')].at(-1).textContent")
    assert shown == HOSTILE.replace("\u202e", "⟨202e⟩").replace("\x07", "⟨0007⟩")
    assert page.problems == []
    assert all(url.startswith(("file:", "about:", "data:")) for url in page.requests)


@in_a_browser
def test_scores_and_siblings(page: Chromium) -> None:
    table = page.evaluate("document.querySelector('#result tbody').innerText")
    assert "40.0 %" in table
    assert "token limit 12" in table
    assert page.evaluate("document.querySelectorAll('#detail .siblings button').length") == 4


@in_a_browser
def test_dark_and_narrow(browser: Chromium, evaluation: Path, tmp_path: Path) -> None:
    for scheme, width in (("dark", 1400), ("light", 390)):
        browser.open(evaluation / "report.html", width=width, scheme=scheme)
        assert browser.problems == []
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
        browser.screenshot(tmp_path / f"{scheme}.png", whole=False)
