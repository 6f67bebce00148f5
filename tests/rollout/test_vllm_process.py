"""The engine in a process of its own: the same answers as in the worker's, and nothing left over however it ends."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from rlpost.rollout.chat import TemplateFormat
from rlpost.rollout.engine import EngineError, SampleRequest
from rlpost.rollout.vllm.channel import Channel, SharedArrays
from tests.rollout import test_vllm_engine as sampling
from tests.rollout import test_vllm_weights as weights
from tests.support.tokenizers import byte_tokenizer
from tests.support.vllm_host import engine_host, small_model

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def own(ray_cluster: None, vllm_folder: Path) -> Iterator[Run]:
    """``run(scenario, *args)`` on one engine in a process of its own, below the actor."""
    with engine_host(vllm_folder, seeded=True, own_process=True) as run:
        yield run


async def imports_vllm(engine: Any) -> bool:
    import sys

    return "vllm" in sys.modules


@pytest.mark.slow
def test_the_workers_own_process_does_without_vllm(own: Run) -> None:
    assert not own(imports_vllm)


@pytest.mark.slow
@pytest.mark.parametrize(
    "same",
    [
        sampling.test_greedy_takes_the_likeliest_token_and_says_its_probability,
        sampling.test_samples_end_with_their_stop_token_or_their_budget,
        sampling.test_a_request_may_say_itself_that_it_is_over,
        sampling.test_abort_returns_what_was_sampled_so_far,
        sampling.test_an_id_in_flight_cannot_be_used_again,
        sampling.test_turns_reuse_the_prefix_and_a_probe_does_not,
        sampling.test_a_probe_does_not_wait_for_the_requests_that_run,
        sampling.test_an_engine_that_slept_goes_on_after_the_next_update,
        weights.test_no_gap_after_each_of_twenty_updates,
        weights.test_running_requests_go_on_with_the_new_weights_and_a_new_cache,
    ],
)
def test_what_holds_in_the_workers_process_holds_here(own: Run, same: Callable[[Run], None]) -> None:
    same(own)


async def busy(engine: Any) -> list[asyncio.Task[Any]]:
    """Many more requests than slots, some of them under way."""
    calls = [asyncio.create_task(engine.generate(SampleRequest(f"busy-{i}", [5, 6], 200))) for i in range(60)]
    while engine.stats().get("running", 0) < 3:
        await asyncio.sleep(0.01)
    return calls


async def errors_of(calls: list[asyncio.Task[Any]]) -> list[BaseException]:
    """Of those that raise something."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    return [result for result in results if isinstance(result, BaseException)]


async def kill_the_process(engine: Any) -> tuple[list[BaseException], float, bool]:
    """SIGKILL under load: what the requests and a later one get, how soon, and whether the engine counts as lost."""
    calls = await busy(engine)
    began = time.monotonic()
    os.kill(engine._loop._process.pid, signal.SIGKILL)
    errors = await errors_of(calls)
    took = time.monotonic() - began
    errors += await errors_of([asyncio.create_task(engine.generate(SampleRequest("late", [5, 6], 2)))])
    await engine.close()
    return errors, took, engine.lost


async def close_it(engine: Any) -> tuple[set[str], int, bool]:
    """Close under load: what the requests get, the exit code, and whether the engine counts as lost."""
    calls = await busy(engine)
    await engine.close()
    return set(map(str, await errors_of(calls))), engine._loop._process.returncode, engine.lost


async def pids(engine: Any) -> tuple[int, int]:
    """Of the worker and of its engine."""
    return os.getpid(), engine._loop._process.pid


@pytest.mark.slow
def test_a_killed_engine_fails_what_it_had_and_what_comes(own: Run) -> None:
    """The last to use the module's engine."""
    errors, took, lost = own(kill_the_process)
    assert took < 10
    assert lost
    assert len(errors) > 50
    for error in errors:
        assert isinstance(error, EngineError)
        assert "the engine's process was killed by SIGKILL" in str(error)


@pytest.mark.slow
def test_closing_leaves_no_process(ray_cluster: None, vllm_folder: Path) -> None:
    with engine_host(vllm_folder, own_process=True) as run:
        errors, code, lost = run(close_it)
    assert (errors, code, lost) == ({"the engine was closed"}, 0, False)


@pytest.mark.slow
def test_a_killed_worker_leaves_no_process(ray_cluster: None, vllm_folder: Path) -> None:
    with engine_host(vllm_folder, own_process=True) as run:
        worker, engine = run(pids)
        os.kill(worker, signal.SIGKILL)
        assert _ends(engine)


def _ends(pid: int) -> bool:
    """Within 10 s."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_an_engine_that_cannot_start_says_why(ray_cluster: None, tmp_path: Path) -> None:
    small_model().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with (
        pytest.raises(ray.exceptions.RayActorError, match="vLLM cannot start with model"),
        engine_host(tmp_path, own_process=True) as run,
    ):
        run(pids)


def test_a_stop_check_is_the_same_after_the_way_to_another_process() -> None:
    chat = TemplateFormat(byte_tokenizer())
    ends = chat.stop_check(["end of it"])
    assert ends is not None
    sent = pickle.loads(pickle.dumps(ends))
    for text in ("not the end", "this is the end of it", ""):
        ids = chat.turn(text)
        assert sent(ids) == ends(ids) == ("end of it" in text)


def test_messages_arrive_in_order_and_a_lost_end_is_told() -> None:
    ours, theirs = socket.socketpair()
    got: list[Any] = []
    lost = threading.Event()
    near = Channel(ours.detach(), got.append, lost.set)
    far = Channel(os.dup(theirs.fileno()), lambda message: far.post(message * 2), lambda: None)
    for number in range(1000):
        near.post(number)
    near.post("end")
    _wait_until(lambda: got[-1:] == ["endend"])
    assert got == [*range(0, 2000, 2), "endend"]
    assert not lost.is_set()
    far.flush()
    theirs.shutdown(socket.SHUT_RDWR)
    near.post(1)
    assert lost.wait(5)


def _wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true() and time.monotonic() < end:
        time.sleep(0.005)


def test_arrays_are_read_where_they_were_written() -> None:
    arrays = [np.arange(7, dtype=np.int16), np.ones((3, 5), np.float32)[:, ::2], np.zeros((0, 4), np.float32)]
    memory = SharedArrays()
    for factor in (1, 2):
        places = memory.write([array * factor for array in arrays])
        read = SharedArrays(memory.descriptor).read(places)
        for array, other in zip(arrays, read, strict=True):
            np.testing.assert_array_equal(other, array * factor)
            assert (other.dtype, other.flags.writeable) == (array.dtype, False)
        assert os.fstat(memory.descriptor).st_size >= sum(array.nbytes for array in arrays)
        del read, other
        memory.clear()
        assert os.fstat(memory.descriptor).st_size == 0
