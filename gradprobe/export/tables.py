"""What was measured as tables: a row for each layer and step, for each step, or for each bin of a histogram."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.export.contents import LAYER_TENSORS, Contents
from gradprobe.histogram import BINS, NEGATIVE_INFINITY, NOT_A_NUMBER, POSITIVE_INFINITY, ZERO, bounds
from gradprobe.statistics import HISTOGRAM_TENSORS, Tensor, names

TableName = Literal["layers", "metrics", "histograms"]
Numbers = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Categories:
    """A column of few different words, each value the number of one."""

    words: Sequence[str]
    numbers: npt.NDArray[np.int32]


Column = Numbers | Categories
#: Columns of one length, by name, in order. What was not recorded is NaN, and of histograms not there.
Table = Mapping[str, Column]


def table(contents: Contents, name: TableName) -> Table:
    """One of the tables.

    `layers`: step, layer, and a column for each statistic of each tensor, `weight_gradients_mean_abs`.
    `metrics`: step, loss, accuracy, …; test_loss and test_accuracy where the test set was evaluated.
    `histograms`: step, layer, tensor, the bin's bounds low ≤ x < high (the nearer to zero belongs to it), count.
    """
    return {"layers": _layers, "metrics": _metrics, "histograms": _histograms}[name](contents)


def _layers(contents: Contents) -> Table:
    blocks = [contents.statistics[tensor] for tensor in LAYER_TENSORS if tensor in contents.statistics]
    steps = _steps(blocks)
    layers = len(contents.layers)
    columns: dict[str, Column] = {
        "step": np.repeat(steps, layers),
        "layer": Categories(contents.layers, np.tile(np.arange(layers, dtype=np.int32), len(steps))),
    }
    for tensor in LAYER_TENSORS:
        block = contents.statistics.get(tensor)
        if block is not None:
            for statistic, values in zip(names(tensor), block.values, strict=True):
                columns[f"{tensor}_{statistic}"] = _at(steps, block, values.T).reshape(-1)
    return columns


def _metrics(contents: Contents) -> Table:
    tensors: list[Tensor] = ["metrics", "evaluation"]
    blocks = [contents.statistics[tensor] for tensor in tensors if tensor in contents.statistics]
    steps = _steps(blocks)
    columns: dict[str, Column] = {"step": steps}
    for tensor in tensors:
        block = contents.statistics.get(tensor)
        if block is not None:
            for statistic, values in zip(names(tensor), block.values, strict=True):
                columns[statistic] = _at(steps, block, values.T).reshape(-1)
    return columns


def _histograms(contents: Contents) -> Table:
    tensors = [tensor for tensor in HISTOGRAM_TENSORS if tensor in contents.counts]
    parts = [_entries(contents.counts[tensor], number) for number, tensor in enumerate(tensors)]
    step, layer, tensor, bins, counts = (
        np.concatenate([part[column] for part in parts]) if parts else np.empty(0, np.int32) for column in range(5)
    )
    return {
        "step": step.astype(np.int64),
        "layer": Categories(contents.layers, layer.astype(np.int32)),
        "tensor": Categories(tensors, tensor.astype(np.int32)),
        "low": BIN_BOUNDS[bins.astype(np.int64), 0],
        "high": BIN_BOUNDS[bins.astype(np.int64), 1],
        "count": counts.astype(np.int64),
    }


def _entries(block: CountsBlock, tensor: int) -> tuple[Numbers, Numbers, Numbers, Numbers, Numbers]:
    row = np.repeat(np.arange(len(block.starts) - 1), np.diff(block.starts))
    return (
        block.steps[row // block.layers],
        row % block.layers,
        np.full(len(row), tensor),
        block.bins,
        block.counts,
    )


def _steps(blocks: Sequence[StatisticsBlock]) -> npt.NDArray[np.int64]:
    return np.unique(np.concatenate([block.steps for block in blocks])) if blocks else np.empty(0, np.int64)


def _at(steps: npt.NDArray[np.int64], block: StatisticsBlock, values: Numbers) -> Numbers:
    """Rows [step, …] of a block at all of `steps`; NaN at those it does not have."""
    if np.array_equal(steps, block.steps):
        return np.ascontiguousarray(values)
    out = np.full((len(steps), *values.shape[1:]), np.nan, np.float32)
    out[np.searchsorted(steps, block.steps)] = values
    return out


def _bin_bounds() -> npt.NDArray[np.float64]:
    points = {ZERO: 0.0, POSITIVE_INFINITY: np.inf, NEGATIVE_INFINITY: -np.inf, NOT_A_NUMBER: np.nan}
    found = np.full((BINS, 2), np.nan)
    for number in range(BINS):
        magnitude = number & (BINS // 2 - 1)
        if number in points:
            found[number] = points[number]
        elif 0 < magnitude < POSITIVE_INFINITY and (magnitude == 1 or magnitude >= 8):
            found[number] = bounds(number)
    return found


#: Lower and upper bound of each bin [4096, 2]; of zero and of what is not finite the value itself, twice.
BIN_BOUNDS: Final = _bin_bounds()
