"""The tiny model of the learner's tests, and one thread: the models are smaller than what a second thread costs."""

from collections.abc import Iterator

import pytest
import torch

from tests.learner.conftest import model_folder

__all__ = ["model_folder"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
