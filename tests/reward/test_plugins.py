"""A user's file is loaded once, and whole, however many threads ask for it at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rlpost.reward.plugins import Plugin

SLOW = "import time\ntime.sleep(0.3)\nRUNS = []\nRUNS.append(1)\ndef reward():\n    return len(RUNS)\n"


def test_threads_see_the_whole_module_run_once(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    plugin = Plugin.locate("slow.py:reward", tmp_path)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: plugin.load(), range(8)))
    assert {reward() for reward in found} == {1}
    assert len(set(found)) == 1
