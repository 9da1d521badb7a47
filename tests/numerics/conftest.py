"""One thread for torch: the networks here are so small that a second one only waits, and tests run side by side."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
