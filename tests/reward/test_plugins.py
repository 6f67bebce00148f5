"""A user's file is loaded once, and whole, however many threads ask for it at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlpost.reward.plugins import Plugin, PluginError

SLOW = "import time\ntime.sleep(0.3)\nRUNS = []\nRUNS.append(1)\ndef reward():\n    return len(RUNS)\n"


def test_threads_see_the_whole_module_run_once(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    plugin = Plugin.locate("slow.py:reward", tmp_path)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: plugin.load(), range(8)))
    assert {reward() for reward in found} == {1}
    assert len(set(found)) == 1


def test_a_file_that_raises_is_refused_in_words_every_time(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise OSError('no such shop')\n")
    plugin = Plugin.locate("broken.py:reward", tmp_path)
    for _ in range(2):
        with pytest.raises(PluginError, match=r"broken\.py.*OSError: no such shop"):
            plugin.load()
