"""Fixtures of the learner's tests: one tiny model on disk a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.learner.helpers import tiny_folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 of 30,000 weights with tied embeddings; never written to by a test."""
    return tiny_folder(tmp_path_factory.mktemp("model") / "tiny")
