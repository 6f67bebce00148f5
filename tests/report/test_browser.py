"""The page in a real browser: it draws, filters, colours and explains; nothing fails and nothing leaves it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlpost.report import build_report, read_rollouts
from tests.report.chromium import BINARY, Chromium
from tests.report.synthetic import make_run

pytestmark = pytest.mark.skipif(not BINARY.exists(), reason=f"needs {BINARY}")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One browser for all tests here."""
    with Chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its page."""
    folder = make_run(tmp_path_factory.mktemp("runs") / "two-apps")
    build_report(folder)
    return folder


@pytest.fixture
def page(browser: Chromium, run: Path) -> Chromium:
    """The browser with the page open and nothing gone wrong."""
    browser.open(run / "report.html")
    assert browser.problems == []
    return browser


def choose(page: Chromium, name: str, value: str) -> None:
    """Set a select of the filters."""
    page.evaluate(
        f"(() => {{ const field = document.querySelector('select[name={name}]'); field.value = '{value}';"
        " field.dispatchEvent(new Event('change')); })()"
    )


def search(page: Chromium, text: str, expected: str) -> None:
    """Type into the search field and wait for the count above the list."""
    page.evaluate("document.querySelector('input[name=text]').focus()")
    page.evaluate(
        f"(() => {{ const field = document.querySelector('input[name=text]'); field.value = {text!r};"
        " field.dispatchEvent(new Event('input')); })()"
    )
    page.wait(f"document.getElementById('count').textContent === {expected!r}")


def texts(page: Chromium, selector: str) -> list[str]:
    """Text of every element that matches."""
    found: list[str] = page.evaluate(f"[...document.querySelectorAll('{selector}')].map((node) => node.textContent)")
    return found


def count(page: Chromium) -> str:
    """The words above the list."""
    words: str = page.evaluate("document.getElementById('count').textContent")
    return words


def test_nothing_fails_and_nothing_is_fetched(page: Chromium, run: Path) -> None:
    for scheme in ("light", "dark"):
        for width in (1400, 420):
            page.open(run / "report.html", width=width, scheme=scheme)
            page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
            page.wait("document.querySelectorAll('#more-charts .readout b').length > 0")
            assert page.problems == []
            assert page.requests == [(run / "report.html").as_uri()]
            assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_head_says_what_came_of_it(page: Chromium) -> None:
    assert texts(page, "h1") == ["two-apps"]
    assert texts(page, ".leap") == ["7.4 %→93.0 %"]
    assert {"gain", "wall time", "steps"} <= set(texts(page, ".facts dt"))
    assert {"+85.5 points", "1 min 23 s", "12"} <= set(texts(page, ".facts dd"))
    label = page.evaluate("document.querySelector('.intervals').getAttribute('aria-label')")
    assert "greedy: before 0.0 %, 95 % interval 0.0 to 1.5 %" in label


def test_the_curves_are_there_with_their_points(page: Chromium) -> None:
    assert texts(page, "#main-charts h3") == ["Success", "Reward"]
    expected = ["Loss", "Entropy", "KL divergence", "Gradient norm", "Learner and engine gap", "Clipped tokens"]
    assert texts(page, "#charts h3")[:6] == expected
    assert {"Time of a step", "Tokens"} <= set(texts(page, "#charts h3"))
    line = page.evaluate("document.querySelector('#main-charts .curve').getAttribute('d')")
    assert line.count("M") == 1
    assert line.count("L") == 11
    norm = page.evaluate("document.querySelectorAll('#charts figure')[3].querySelector('.curve').getAttribute('d')")
    assert norm.count("M") == 2  # step 7 is null: the line breaks there
    assert "NaN" not in "".join(page.evaluate("[...document.querySelectorAll('path')].map((p) => p.getAttribute('d'))"))
    assert page.evaluate("document.querySelectorAll('#main-charts .whisker').length") == 2


def test_all_charts_read_the_step_under_the_pointer(page: Chromium) -> None:
    last = texts(page, ".readout")
    page.evaluate("document.querySelectorAll('figure')[0].focus()")
    page.press("Home")
    first = texts(page, ".readout")
    assert all(one != other for one, other in zip(first[:4], last[:4], strict=True))
    assert set(texts(page, ".cursor-step")) == {"0"}
    page.press("ArrowRight")
    assert set(texts(page, ".cursor-step")) == {"1"}
    page.press("Escape")
    assert texts(page, ".readout") == last
    x, y = page.evaluate(
        "(() => { const box = document.querySelector('.plot').getBoundingClientRect();"
        " return [box.x + box.width / 2, box.y + 50]; })()"
    )
    page.point(x, y)
    page.wait("document.querySelector('.cursor-step').textContent === '6'")
    page.point(1, 1)


def test_a_logarithmic_axis_can_be_switched(page: Chromium) -> None:
    ticks = (
        "[...document.querySelectorAll('#charts figure')[1].querySelectorAll('.plot text')].map((t) => t.textContent)"
    )
    before = page.evaluate(ticks)
    page.evaluate("document.querySelectorAll('#charts figure')[1].querySelector('button').click()")
    assert page.evaluate(ticks) != before
    assert page.problems == []


def test_filters_and_sorting(page: Chromium, run: Path) -> None:
    records = list(read_rollouts(run))
    solved = sum(record["success"] for record in records)
    assert count(page) == f"{len(records)} rollouts, {solved} solved"
    page.evaluate("document.querySelector('input[name=outcome][value=right]').click()")
    assert count(page) == f"{solved} rollouts, {solved} solved"
    assert set(texts(page, "#list .row > :first-child")) == {"✓"}
    choose(page, "step", "11")
    wanted = [record for record in records if record["step"] == 11 and record["success"]]
    assert len(texts(page, "#list .row")) == len(wanted)
    page.evaluate("document.querySelector('input[name=outcome][value=wrong]').click()")
    choose(page, "step", "")
    choose(page, "stop", "turn_limit")
    cut = [record for record in records if record["stop"] == "turn_limit"]
    assert count(page) == f"{len(cut)} rollouts, 0 solved"
    choose(page, "stop", "")
    page.evaluate("document.querySelector('input[name=outcome][value=\"\"]').click()")
    choose(page, "sort", "rise")
    highest = max(record["advantage"] for record in records if record["advantage"] is not None)
    assert texts(page, "#list .row .under.num")[0] == f"A +{highest:.3g}"
    choose(page, "kept", "no")
    assert set(texts(page, "#list .row .under.num")) == {"not learned"}


def test_search_finds_text_and_marks_it(page: Chromium, run: Path) -> None:
    found = [record for record in read_rollouts(run) if "exactly 17" in record["text"]]
    solved = sum(record["success"] for record in found)
    search(page, "EXACTLY 17", f"{len(found)} rollouts, {solved} solved")
    assert "".join(texts(page, ".tokens .hit")) == " exactly 17"
    search(page, "no such words", "0 rollouts, 0 solved")
    assert texts(page, "#list .empty") == ["No rollout matches these filters."]


def test_the_list_is_walked_with_the_keyboard_and_grows(page: Chromium) -> None:
    assert len(texts(page, "#list .row")) == 100
    page.evaluate("document.getElementById('list').focus()")
    page.press("ArrowDown")
    page.press("ArrowDown")
    assert page.evaluate("document.getElementById('list').getAttribute('aria-activedescendant')") == "row-2"
    assert page.evaluate("document.querySelectorAll('[aria-selected=true]').length") == 1
    page.press("End")
    assert len(texts(page, "#list .row")) == 193
    assert page.evaluate("document.querySelector('[aria-selected=true]').id") == "row-192"


@pytest.mark.parametrize("mode", ["mask", "advantage", "gap", "logprob"])
def test_tokens_are_coloured_and_have_a_legend(page: Chromium, run: Path, mode: str) -> None:
    choose(page, "sort", "rise")
    page.evaluate(f"document.querySelector('input[name=mode][value={mode}]').click()")
    records = [record for record in read_rollouts(run) if record["advantage"] is not None]
    record = max(records, key=lambda one: one["advantage"])
    classes = page.evaluate("[...document.querySelectorAll('.tokens .turn .t')].map((token) => token.classList[1])")
    assert len(classes) == sum(record["policy_mask"])
    place = record["policy_mask"].index(1)
    gap = abs(record["learner_logprobs"][place] - record["rollout_logprobs"][place])
    chance = 2.718281828 ** record["rollout_logprobs"][place]
    expected = {
        "mask": "m1",
        "advantage": "u3",
        "gap": f"g{sum(gap >= bound for bound in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1))}",
        "logprob": f"p{sum(chance < bound for bound in (0.9, 0.5, 0.2, 0.05, 0.01))}",
    }
    assert classes[0] == expected[mode]
    assert len(texts(page, ".legend .t")) >= 1
    assert page.evaluate("document.querySelectorAll('.segment.turn').length") == len(record["turns"])


def test_a_token_tells_its_numbers(page: Chromium, run: Path) -> None:
    choose(page, "sort", "oldest")
    first = next(read_rollouts(run))
    page.evaluate("document.querySelector('.tokens').focus()")
    page.press("ArrowRight")
    place = first["turns"][0][0]
    facts = dict(zip(texts(page, "#tooltip dt"), texts(page, "#tooltip dd"), strict=True))
    assert facts["token id"] == str(first["token_ids"][place])
    assert facts["position"] == str(place)
    assert facts["policy version"] == "0"
    shown = float(facts["rollout log-prob"].replace("\N{MINUS SIGN}", "-"))
    assert shown == pytest.approx(first["rollout_logprobs"][place], rel=1e-4)
    page.press("ArrowRight")
    assert dict(zip(texts(page, "#tooltip dt"), texts(page, "#tooltip dd"), strict=True))["position"] == str(place + 1)
    page.press("Escape")
    assert page.evaluate("document.getElementById('tooltip').hidden") is True


def test_hostile_rollouts_are_text_and_nothing_else(page: Chromium) -> None:
    search(page, "pwned", "1 rollout, 0 solved")
    shown = "".join(texts(page, ".tokens .turn .stream"))
    assert shown.startswith("</script><script>window.pwned = 1</script><img src=x onerror='window.pwned = 2'><!-- ")
    assert "⟨202e⟩⟨0000⟩ naïve 🦊" in shown
    (error,) = texts(page, ".detail .error")
    assert error.startswith("raised </script>")
    assert error.endswith("⟨202e⟩⟨0000⟩ naïve 🦊")
    assert texts(page, ".detail h3") == ["✗ <b>hostile</b>"]
    assert page.evaluate("window.pwned === undefined")
    assert page.evaluate("document.querySelectorAll('img, .detail h3 b, #list b').length") == 0
    assert page.problems == []


def test_the_theme_can_be_chosen(page: Chromium) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(251, 250, 247)"
    page.evaluate("document.querySelector('input[name=theme][value=dark]').click()")
    assert page.evaluate(ground) == "rgb(19, 20, 22)"
    page.evaluate("document.querySelector('input[name=theme][value=\"\"]').click()")


def test_runs_without_result_or_steps(browser: Chromium, tmp_path: Path) -> None:
    for name, steps in (("one-step", 1), ("two-steps", 2)):
        browser.open(build_report(make_run(tmp_path / name, steps=steps, finished=False)))
        assert browser.problems == []
        assert texts(browser, ".leap") == ["7.4 %"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "recipe.yaml").write_text("steps: 3\n")
    browser.open(build_report(tmp_path / "empty"))
    assert browser.problems == []
    assert browser.evaluate("document.getElementById('curves').hidden") is True
    assert texts(browser, "#rollouts-hint") == ["No rollouts were recorded in this run."]


def test_a_logarithmic_chart_leaves_out_what_it_cannot_show(browser: Chromium, tmp_path: Path) -> None:
    gaps, kls = (1e-7, 2e-7, 3e-7, 5e-7), (1e-9, -2e-9, 1e-8, 2e-8)
    rows = [
        {"step": step, "gap/logprob_abs": gap, "gap/kl": kl}
        for step, (gap, kl) in enumerate(zip(gaps, kls, strict=True))
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    browser.open(build_report(tmp_path))
    assert browser.problems == []
    paths = browser.evaluate("[...document.querySelectorAll('.curve')].map((line) => line.getAttribute('d'))")
    assert [path.count("M") for path in paths] == [1, 2]
    ticks = texts(browser, "#charts .plot text")
    assert "1e\N{MINUS SIGN}7" in ticks
    assert "1e\N{MINUS SIGN}9" in ticks
