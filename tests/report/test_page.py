"""What is inside report.html: one file, nothing from outside, nothing of the model's that could run, and its words."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from rlpost.report import ReportError, build_report, read_rollouts
from rlpost.report.curves import curves
from rlpost.report.embed import embed_rollouts, fair_quota, spaced
from rlpost.report.page import run_data
from tests.report.synthetic import HOSTILE, make_run

ASSETS = Path(__file__).resolve().parents[2] / "rlpost" / "report" / "assets"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    return make_run(tmp_path_factory.mktemp("runs") / "two-apps & <b>one</b>")


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    """Its page."""
    return build_report(run).read_text(encoding="utf-8")


def packed(page: str) -> dict[str, Any]:
    """The rollouts in a page."""
    match = re.search(r'id="rollout-data">([^<]*)<', page)
    assert match
    data: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(match[1])))
    return data


def test_only_our_scripts_are_in_it_and_the_policy_names_them(page: str) -> None:
    kinds = re.findall(r"<script([^>]*)>", page)
    assert [re.search(r'type="([^"]*)"', kind) is not None for kind in kinds] == [True, True, False]
    assert page.count("</script") == 3
    script = re.search(r"<script>(.*?)</script>", page, re.S)
    style = re.search(r"<style>(.*?)</style>", page, re.S)
    assert script
    assert style
    for text in (script[1], style[1]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in page
    assert "default-src 'none'" in page
    assert "unsafe-inline" not in page


def test_nothing_comes_from_outside(page: str) -> None:
    links = re.findall(r"""(?:src|href)=["']([^"']*)""", re.sub(r'id="run-data">.*?</script>', "", page, flags=re.S))
    assert all(link.startswith("#") or link == "data:," for link in links)
    assert "@import" not in page
    assert not set(re.findall(r"https?://[^\"'\s]+", page)) - {"http://www.w3.org/2000/svg"}


def test_hostile_words_are_carried_and_escaped(page: str, run: Path) -> None:
    assert "pwned" not in page
    assert "<b>one" not in page
    data = packed(page)
    texts = data["pool"]["texts"]
    (hostile,) = [one for one in data["rollouts"] if one["stop"] == "env_failed"]
    assert "".join(texts[number] for number in hostile["t"]).endswith(HOSTILE)
    assert hostile["task"] == "<b>hostile</b>"
    assert hostile["error"] == f"raised {HOSTILE}"


def test_a_recipe_that_closes_scripts_is_escaped(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=2)
    (folder / "recipe.yaml").write_text(f"env:\n  name: '</script>{{{{script}}}}'\n# {HOSTILE}\n", encoding="utf-8")
    page = build_report(folder).read_text(encoding="utf-8")
    assert page.count("</script") == 3
    assert page.count('"use strict"') == 1


def test_the_embedded_rollouts_are_the_recorded_ones(page: str, run: Path) -> None:
    data = packed(page)
    records = list(read_rollouts(run))
    assert data["shown"] == data["logged"] == len(records) == len(data["rollouts"])
    for record, one in zip(records, data["rollouts"], strict=True):
        assert [data["pool"]["ids"][number] for number in one["t"]] == record["token_ids"]
        assert [data["pool"]["texts"][number] for number in one["t"]] == record["tokens"]
        mask = [place % 2 for place, length in enumerate(one["m"]) for _ in range(length)]
        assert mask == record["policy_mask"]
        policy = [place for place, on in enumerate(mask) if on]
        assert one["p"] == pytest.approx([record["rollout_logprobs"][place] for place in policy], rel=1e-4)
        assert [version for version, count in one["v"] for _ in range(count)] == [record["versions"][p] for p in policy]
        if record["kept"]:
            gaps = [record["learner_logprobs"][place] - record["rollout_logprobs"][place] for place in policy]
            assert one["d"] == pytest.approx(gaps, rel=6e-3)
        else:
            assert one["d"] is None


def test_more_rollouts_than_the_page_carries(run: Path) -> None:
    records = list(read_rollouts(run))
    data = embed_rollouts(run, max_rollouts=40, max_tokens=10**6)
    assert (data["shown"], data["logged"]) == (36, len(records))  # 12 steps of 3
    assert [(one["step"], one["index"]) for one in data["rollouts"][:4]] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    few = embed_rollouts(run, max_rollouts=4, max_tokens=10**6)
    assert [one["step"] for one in few["rollouts"]] == [2, 5, 8, 11]
    assert (few["steps_shown"], few["steps_logged"]) == (4, 12)


def test_more_tokens_than_the_page_carries(run: Path) -> None:
    lengths = [len(record["token_ids"]) for record in read_rollouts(run)]
    data = embed_rollouts(run, max_rollouts=10**6, max_tokens=sum(lengths) // 2)
    assert {one["step"] for one in data["rollouts"]} == set(range(12))
    assert sum(len(one["t"]) for one in data["rollouts"]) <= sum(lengths) // 2
    single = embed_rollouts(run, max_rollouts=10**6, max_tokens=1)
    assert [one["index"] for one in single["rollouts"]] == [0] * 12


def test_shares_of_the_cap() -> None:
    assert fair_quota([16, 16, 2], 20) == 9
    assert fair_quota([16, 16], 100) == 16
    assert fair_quota([5, 5, 5], 2) == 1
    assert spaced(list(range(10)), 4) == [1, 4, 6, 9]
    assert spaced([1, 2], 4) == [1, 2]


def test_every_metric_finds_a_chart() -> None:
    rows = [
        {"step": 0, "policy_version": 1, "reward/mean": 0.1, "reward/std": 0.3, "episodes": 8, "env/calls": 1.5},
        {"step": 1, "policy_version": 2, "reward/mean": 0.123456789, "reward/std": None, "episodes": 8, "stop/done": 3},
    ]
    found = curves(rows)
    assert found["columns"]["reward/mean"] == [0.1, 0.123457]
    assert found["columns"]["stop/done"] == [None, 3]
    assert [chart["title"] for chart in found["charts"]] == ["Reward"]
    assert [chart["title"] for chart in found["more"]] == ["Episodes", "Stop reasons", "env/calls"]


def test_an_interrupted_run_shows_what_there_is(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=3, finished=False)
    (folder / "recipe.yaml").write_text("steps: 10\nalgorithm: {name: /home/me/my_algo.py:Mine}\n")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "rew')
    data = run_data(folder)
    assert data["status"] == "not finished: 3 of 10 steps"
    assert data["evaluations"].keys() == {"before"}
    assert data["chips"] == [("algorithm", "Mine"), ("steps", "10")]
    assert build_report(folder).exists()


def test_a_run_that_never_came_to_a_step(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("steps: 10\n")
    page = build_report(tmp_path).read_text(encoding="utf-8")
    assert packed(page)["logged"] == 0
    assert run_data(tmp_path)["status"] == "no steps yet"


def test_folders_that_hold_no_run(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="there is no folder"):
        build_report(tmp_path / "nowhere")
    with pytest.raises(ReportError, match="is no run folder"):
        build_report(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ReportError, match="is a file"):
        build_report(tmp_path / "file")


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours (WCAG 2)."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_every_text_has_contrast_in_both_themes() -> None:
    styles = "".join((ASSETS / name).read_text() for name in ("page.css", "rollouts.css"))
    found = dict(re.findall(r"--([\w-]+): light-dark\((#\w{6}, #\w{6})\)", styles))
    colours = {name: pair.split(", ") for name, pair in found.items()}
    texts = ["ink", "soft", "accent", "good", "bad"]
    pairs = [(text, ground) for text in texts for ground in ("paper", "panel", "sunken")]
    pairs += [(f"series-{number}", "paper") for number in range(1, 7)]
    pairs += [(text, "accent-soft") for text in ("ink", "soft", "good", "bad")] + [("paper", "ink")]
    ramps = [name for name in colours if re.fullmatch(r"(mask|gap|prob|up|down)-\d", name)]
    assert len(ramps) == 17
    pairs += [("ink", ramp) for ramp in ramps]
    for theme in (0, 1):
        poor = {pair: contrast(colours[pair[0]][theme], colours[pair[1]][theme]) for pair in pairs}
        assert {pair: ratio for pair, ratio in poor.items() if ratio < 4.5} == {}


def test_a_run_over_sources_shows_their_weights_and_nothing_of_rollouts(tmp_path: Path) -> None:
    recipe = (
        "algorithm: {name: scalebio}\nenv: {name: rlpost.envs.base:Env}\nsteps: 2\nrollout: {max_turns: 3}\nseed: 0\n"
    )
    (tmp_path / "recipe.yaml").write_text(recipe)
    assert dict(run_data(tmp_path)["chips"])["turns at most"] == "3"  # nothing says yet that it is of this kind
    test = {"weighted": {"loss": 0.5, "token_accuracy": 0.75, "answer_accuracy": 0.25}}
    content = {"weights": {"dull": 0.2, "bright": 0.8}, "test": test}
    (tmp_path / "source_weights.json").write_text(json.dumps(content))
    data = run_data(tmp_path)
    assert data["sources"] == {"weights": [("bright", 0.8), ("dull", 0.2)], "test": [["weighted", 0.5, 0.75, 0.25]]}
    assert dict(data["chips"]) == {"algorithm": "scalebio", "steps": "2", "seed": "0"}
    (tmp_path / "source_weights.json").write_text("{")
    assert run_data(tmp_path)["sources"] is None
