"""Fixtures of the rollout tests: one vLLM engine for the whole session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def vllm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model's folder."""
    from tests.support.vllm_host import small_model

    folder = tmp_path_factory.mktemp("vllm_model")
    small_model().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def vllm(ray_cluster: None, vllm_folder: Path) -> Iterator[Callable[..., Any]]:
    """``run(scenario, *args)`` on one real engine in an actor. It is deterministic: lock-step begins with ``expect``
    and without that it runs free. Tests may leave any weights behind, and count versions from ``engine.version``."""
    from tests.support.vllm_host import engine_host

    with engine_host(vllm_folder, deterministic=True) as run:
        yield run
