"""Every way a data file can be wrong, said with file and line; and every form a row may have."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlpost.algorithms.scalebio import ScaleBiOConfig
from rlpost.bilevel.data import DataError, Rows, read
from rlpost.bilevel.rows import conversation
from rlpost.envs.base import EnvError
from tests.bilevel.helpers import corpus_of, options, sums, write


def reading(folder: Path, notes: list[str] | None = None, **changes: Any) -> Rows:
    config = ScaleBiOConfig.model_validate(options(folder, **changes))
    return read(config, folder, (notes if notes is not None else []).append)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"items": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"prompt": "q", "response": "a"},
        {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]},
        {"question": "q", "answer": "a", "source": "x"},
        {"instruction": "q", "input": "", "output": "a"},
    ],
)
def test_forms_of_a_row(row: dict[str, Any]) -> None:
    assert conversation(row) == [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def test_further_forms_of_a_row() -> None:
    alpaca = conversation({"instruction": "add", "input": "1 2", "output": "3"})
    assert alpaca[0]["content"] == "add\n1 2"
    assert conversation({"question": "2+2", "answer": 4})[1]["content"] == "4"
    assert conversation({"prompt": "only this"}) == [{"role": "user", "content": "only this"}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"a": 1}, "none of the columns messages, .*there are: a"),
        ({"prompt": "q", "response": " "}, "'response' must be a text that is not empty"),
        ({"prompt": None, "question": ["x"]}, "message 1 of 'question' is no object"),
        ({"messages": []}, "must be a list of messages"),
        ({"messages": [{"content": "q"}]}, "neither 'role' nor 'from'"),
        ({"messages": [{"role": "user", "content": "q"}]}, "end with the assistant's"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "must open with a message to the assistant"),
    ],
)
def test_rows_that_are_none(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        conversation(row)


def test_mixed_forms_and_files_are_read(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(sums(400, 3)), tmp_path / "table.parquet")
    with gzip.open(tmp_path / "packed.json.gz", "wt") as file:
        json.dump([{"items": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}], file)
    mixed = write(tmp_path / "mixed.jsonl", [sums(0, 1)[0], {"question": "q", "answer": "a"}, {"text": "a text"}])
    rows = reading(tmp_path, sources=[str(tmp_path / "table.parquet"), str(tmp_path / "packed.json.gz"), mixed])
    assert {name: len(found) for name, found in rows.sources.items()} == {"table": 3, "packed": 1, "mixed": 3}


def test_an_empty_source_is_named(tmp_path: Path) -> None:
    (tmp_path / "void.jsonl").write_text("")
    with pytest.raises(DataError, match=r"the source 'void' is empty: .*void\.jsonl"):
        reading(tmp_path, sources=[write(tmp_path / "a.jsonl", sums(0, 2)), str(tmp_path / "void.jsonl")])


@pytest.mark.parametrize("broken", [["{", "[]"], [{"a": 1}]], ids=["no objects", "no columns"])
def test_a_source_of_broken_rows_only_is_empty(tmp_path: Path, broken: list[Any]) -> None:
    sources = [write(tmp_path / "a.jsonl", sums(0, 2)), write(tmp_path / "b.jsonl", broken)]
    with pytest.raises((DataError, EnvError), match=r"(the source 'b' is empty: no usable row|b\.jsonl has no rows)"):
        reading(tmp_path, sources=sources)


@pytest.mark.parametrize("key", ["validation", "test"])
def test_an_empty_held_out_set_is_named(tmp_path: Path, key: str) -> None:
    (tmp_path / "void.jsonl").write_text("\n")
    with pytest.raises((DataError, EnvError), match=rf"(algorithm\.{key} is empty|void\.jsonl has no rows)"):
        reading(tmp_path, **{key: str(tmp_path / "void.jsonl")})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EnvError, match=r"no data file .*gone\.jsonl"):
        reading(tmp_path, validation="gone.jsonl")


def test_broken_rows_are_reported_with_file_and_line_and_skipped_up_to_the_limit(tmp_path: Path) -> None:
    good = sums(0, 2)
    broken = write(tmp_path / "a.jsonl", [good[0], "{not json", "7", {"prompt": "q", "response": ""}, good[1]])
    sources, notes = [broken, write(tmp_path / "b.jsonl", sums(50, 2))], list[str]()
    rows = reading(tmp_path, notes, sources=sources, max_broken=3)
    assert len(rows.sources["a"]) == 2
    assert len(notes) == 3
    for note, line, words in zip(notes, (2, 3, 4), ("not JSON", "an object is wanted", "'response'"), strict=True):
        assert f"{broken}, line {line}: " in note
        assert words in note
    with pytest.raises(DataError, match=r"3 broken rows, more than algorithm\.max_broken \(2\)[^§]*a\.jsonl, line 4"):
        reading(tmp_path, sources=sources, max_broken=2)


def test_an_overlap_is_refused_with_its_count_and_allowed_on_request(tmp_path: Path) -> None:
    keys = options(tmp_path)
    write(tmp_path / "validation.jsonl", sums(200, 8) + sums(3, 2))
    with pytest.raises(
        DataError, match=r"2 of 10 validation examples are also in the source 'good' \(first: .*line 9\)"
    ):
        read(ScaleBiOConfig.model_validate(keys), tmp_path, print)
    notes: list[str] = []
    read(ScaleBiOConfig.model_validate(keys | {"allow_overlap": True}), tmp_path, notes.append)
    assert "2 of 10 validation examples" in notes[0]


def test_a_test_set_must_not_overlap_either(tmp_path: Path) -> None:
    keys = options(tmp_path)
    write(tmp_path / "test.jsonl", sums(205, 3))
    with pytest.raises(DataError, match="3 of 3 test examples are also in the validation set"):
        read(ScaleBiOConfig.model_validate(keys), tmp_path, print)


def test_sources_by_column(tmp_path: Path) -> None:
    rows = [row | {"source": "xy"[n % 2]} for n, row in enumerate(sums(0, 6))]
    found = reading(tmp_path, sources=[{"data": write(tmp_path / "all.jsonl", rows), "column": "source"}])
    assert {name: len(part) for name, part in found.sources.items()} == {"x": 3, "y": 3}
    one = [row | {"source": "x"} for row in sums(0, 6)]
    with pytest.raises(DataError, match=r"only one source \('x'\)"):
        reading(tmp_path, sources=[{"data": write(tmp_path / "one.jsonl", one), "column": "source"}])
    twice = [
        {"data": write(tmp_path / "all.jsonl", rows), "column": "source"},
        write(tmp_path / "x.jsonl", sums(50, 2)),
    ]
    with pytest.raises(DataError, match="two sources are called 'x'"):
        reading(tmp_path, sources=twice)
    unnamed = [{"data": write(tmp_path / "all.jsonl", sums(0, 2)), "column": "source"}]
    with pytest.raises(DataError, match="line 2: no source in the column 'source'"):
        reading(tmp_path, sources=unnamed, max_broken=1)


def test_tokens(tmp_path: Path, model_folder: Path) -> None:
    corpus = corpus_of(options(tmp_path), model_folder)
    assert corpus.names == ["good", "dots", "words"]
    assert np.bincount(corpus.source).tolist() == [24, 16, 8]
    example = corpus.train[0]
    text = bytes(example.token_ids[example.learned][:-1].tolist())  # the last is the end of the turn
    assert len(text) == 1
    assert example.tokens == 2


def test_examples_that_are_too_long_are_dropped_or_refused(tmp_path: Path, model_folder: Path) -> None:
    long = [{"prompt": "x" * 100, "response": "y"}]
    keys = options(tmp_path)
    write(tmp_path / "dots.jsonl", long + sums(100, 2, "."))
    assert np.bincount(corpus_of(keys, model_folder).source).tolist() == [24, 2, 8]
    write(tmp_path / "dots.jsonl", long)
    with pytest.raises(DataError, match=r"no example of the source 'dots' .* rollout\.max_context \(64 tokens\)"):
        corpus_of(keys, model_folder)


def test_a_prompt_without_response_is_learned_itself(tmp_path: Path, model_folder: Path) -> None:
    keys = options(tmp_path)
    write(tmp_path / "words.jsonl", [{"prompt": "abc"}])
    assert corpus_of(keys, model_folder).train[-1].tokens == len("abc\n") - 1
