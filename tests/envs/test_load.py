"""Tasks from files: every format gives the same tasks, and what is wrong is named with its place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from rlpost.envs.base import EnvError, Task
from rlpost.envs.load import load_tasks

ROWS: list[dict[str, Any]] = [
    {"prompt": "1+1?", "answer": "2", "scenario": "sums", "difficulty": 1, "source": "school"},
    {"prompt": "größer: 2 or 3?\u2028", "answer": "3", "scenario": "order", "difficulty": 2, "source": "school"},
]


def _write(path: Path) -> Path:
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n\n"
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress((lines if ".jsonl" in path.name else json.dumps(ROWS)).encode()))
    else:
        path.write_text(lines if path.suffix == ".jsonl" else json.dumps(ROWS))
    return path


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.jsonl.gz", "t.json.gz", "t.parquet"])
def test_every_format_gives_the_same_tasks(tmp_path: Path, name: str) -> None:
    assert load_tasks(_write(tmp_path / name)) == [
        Task("t-0", ROWS[0], "sums", 1, "school"),
        Task("t-1", ROWS[1], "order", 2, "school"),
    ]


def test_ids_come_from_their_column(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"id": 7}\n{"task_id": "HumanEval/3", "difficulty": "hard", "source": ["x"]}\n')
    tasks = load_tasks(str(path))
    assert [task.id for task in tasks] == ["7", "HumanEval/3"]
    assert (tasks[1].difficulty, tasks[1].source) == (0, "")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.jsonl", '{"a": 1}\n{"a": \n', r"t\.jsonl, line 2: not JSON"),
        ("t.jsonl", '{"a": 1}\n\n[1]\n', r"t\.jsonl, line 3: an object is wanted, this is list"),
        ("t.json", '[{"a": 1},\n {"a" 2}]', r"t\.json, line 2: not JSON"),
        ("t.json", '{"a": 1}', "a list of objects is wanted, this is dict"),
        ("t.json", "[3]", r"t\.json, row 1: an object is wanted"),
        ("t.jsonl", '{"id": 1}\n{"id": 2}\n{"id": "1"}', r"line 3: the id '1' is also that of .*line 1"),
        ("t.jsonl", "\n", r"t\.jsonl has no rows"),
        ("t.json", "[]", r"t\.json has no rows"),
        ("t.jsonl.gz", "not gzip", r"cannot read .*t\.jsonl\.gz"),
        ("t.parquet", "not parquet", r"cannot read .*t\.parquet"),
        ("t.tsv", "a\tb\n1\t2\n", r"t\.tsv: not a \.jsonl"),
        ("t.csv", "a,b\n1,2\n3\n", r"t\.csv, line 3: not as many fields"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(EnvError, match=words):
        load_tasks(tmp_path / name)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(EnvError, match=r"cannot read .*t\.jsonl.*utf-8"):
        load_tasks(tmp_path / "t.jsonl")


def test_a_missing_file_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(EnvError, match=r"no data file .*absent\.jsonl"):
        load_tasks(tmp_path / "absent.jsonl")


def test_a_data_set_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EnvError, match=r"'no-such-owner/nothing' is neither a file here nor .*\(split 'train'\)"):
        load_tasks("no-such-owner/nothing")
