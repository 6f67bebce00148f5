"""Fixtures that all tests share: one local Ray cluster for the whole session.

Left out: anything of one part only; a part's own fixtures live in its own folder.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray cluster of four logical CPUs; every actor a test starts in it must be killed by that test."""
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
    yield
    ray.shutdown()
