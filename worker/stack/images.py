"""A data set's images as what is not background in them."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from worker.data import Dataset
from worker.stack import kernels

_SHADES: Final = 256
_LOOKED_AT: Final = 10_000  # enough to tell that there are more


@dataclass(frozen=True, eq=False, slots=True)
class Images:
    """Images [N, I] as entries: image n is `background` everywhere, plus v at pixel `columns`[k] for each k of
    `starts`[n] ≤ k < `starts`[n + 1]. v is `levels`[`values`[k]]: files have 256 shades, and a byte an entry is what
    the memory's speed makes worth it. Where there are more, there are no levels and `values` holds v itself.
    """

    starts: npt.NDArray[np.int64]
    columns: npt.NDArray[np.uint16]
    values: kernels.Codes
    levels: npt.NDArray[np.float32]
    background: float
    inputs: int

    @classmethod
    def of(cls, images: Tensor) -> Self:
        """From float32 [N, I]; the background is the darkest pixel, where at least half of the pixels are that."""
        pixels = images.numpy()
        background = float(pixels.min())
        count = kernels.count_entries(pixels, background)
        if count > pixels.size // 2:
            background, count = 0.0, kernels.count_entries(pixels, 0.0)
        starts = np.empty(len(pixels) + 1, np.int64)
        columns, values = np.empty(count, np.uint16), np.empty(count, np.float32)
        kernels.list_entries(pixels, background, starts, columns, values)
        return cls(starts, columns, *_coded(values), background, pixels.shape[1])

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def arrays(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16], kernels.Codes, kernels.Floats, float]:
        """As the kernels take them."""
        return self.starts, self.columns, self.values, self.levels, self.background


def _coded(values: npt.NDArray[np.float32]) -> tuple[kernels.Codes, npt.NDArray[np.float32]]:
    """Values as places among their levels, and these; as they are, and no levels, where there are too many."""
    if len(np.unique(values[:_LOOKED_AT])) <= _SHADES:
        levels = np.unique(values)
        if len(levels) <= _SHADES:
            return np.searchsorted(levels, values).astype(np.uint8), levels
    return values, np.empty(0, np.float32)


@dataclass(frozen=True, eq=False, slots=True)
class Data:
    """What a stack trains on and is tested with."""

    images: Images
    labels: Tensor
    test_images: Images
    test_labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


# As many as `worker.data` keeps; a tenth of a second each.
@lru_cache(maxsize=2)
def data_of(dataset: Dataset) -> Data:
    """The data set in this form; the second time in a process costs nothing."""
    contiguous = torch.contiguous_format
    return Data(
        Images.of(dataset.train_images.contiguous(memory_format=contiguous)),
        dataset.train_labels,
        Images.of(dataset.test_images.contiguous(memory_format=contiguous)),
        dataset.test_labels,
    )
