"""What the kernels' tests share."""

import pytest
import torch

from peewit.kernels import library


@pytest.fixture
def threads():
    """Set the number of threads; it is as before after the test."""
    if not library.parallel():
        pytest.skip("the native kernels were built for one thread here (no OpenMP)")
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
