"""What the packages of others need to be imported here."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def operators() -> Iterator[None]:
    """torchvision's compiled operators are linked against CUDA's PyTorch, and as it loads it asks for two of them.

    Where PyTorch is the CPU's, their declarations are enough: networks are made of none of them.
    """
    library = None
    if torch.version.cuda is None:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield
    del library
