"""Fixtures of the kernel tests."""

import pytest
import torch

from peewit.kernels import library


@pytest.fixture
def threads():
    """Yield a function that sets the number of threads, and restore the number afterwards."""
    if not library.parallel():
        pytest.skip("the kernels were compiled without OpenMP")
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
