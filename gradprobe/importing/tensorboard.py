"""From TensorBoard's event files to the blocks of a run.

A histogram there is more than its buckets: `HistogramProto` holds least and largest element, their number, Σx and Σx²
(https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/summary.proto). So mean, std, norm and
max_abs are exact; mean_abs comes from the buckets, within half a bucket's width; zero_fraction is NaN, not known.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gradprobe.blocks import StatisticsBlock
from gradprobe.errors import NothingToImport
from gradprobe.importing.names import Meaning, of_histogram, of_scalar
from gradprobe.statistics import Tensor, names

_EVERYTHING: Final = {"scalars": 0, "histograms": 0, "tensors": 1, "images": 1, "audio": 1, "compressedHistograms": 1}
_DISTRIBUTION: Final = names("weight_gradients")

Values = dict[int, Sequence[float]]


@dataclass(slots=True)
class Imported:
    """What was found: blocks by tensor, the layers by name with the size of their weights, and what was left, and why.

    `taken` tells of each tag what it became.
    """

    layers: list[str]
    sizes: list[int]
    blocks: dict[Tensor, StatisticsBlock]
    taken: dict[str, str]
    left: dict[str, str]
    every: int = 1
    stop: int = 0
    exact: bool = True


@dataclass(slots=True)
class _Gathered:
    """Series as they are read: by tensor, statistic and layer (None: the run's own), step → value."""

    series: dict[tuple[Tensor, str, str | None], dict[int, float]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    exact: bool = True

    def put(self, meaning: Meaning, statistic: str, step: int, value: float) -> None:
        self.series.setdefault((meaning.tensor, statistic, meaning.layer), {})[step] = value


def read(directory: Path) -> Imported:
    """Read all event files of one run.

    Raises:
        NothingToImport: there is none, or nothing in them that is known.
    """
    if not any(directory.glob("*tfevents*")):
        runs = sorted({path.parent for path in directory.rglob("*tfevents*")})
        told = f"; there are some in {', '.join(map(str, runs[:5]))}: import one run at a time" if runs else ""
        raise NothingToImport(f"There are no event files in {directory}{told}.")
    events = EventAccumulator(str(directory), size_guidance=_EVERYTHING).Reload()
    tags, found = events.Tags(), _Gathered()
    for tag in tags["scalars"]:
        _take_scalars(found, tag, events.Scalars(tag))
    for tag in tags["histograms"]:
        _take_histograms(found, tag, events.Histograms(tag))
    for tag in tags["tensors"]:
        found.left[tag] = "it is in TensorFlow 2's form, which is not read; write it with torch.utils.tensorboard"
    return _imported(found, directory)


def _take_scalars(found: _Gathered, tag: str, events: Sequence[Any]) -> None:
    meaning = of_scalar(tag)
    if isinstance(meaning, str):
        found.left[tag] = meaning
        return
    assert meaning.statistic is not None  # noqa: S101 - of a scalar it is told
    found.taken[tag] = " ".join(filter(None, (meaning.tensor, meaning.statistic, meaning.layer)))
    for event in events:
        found.put(meaning, meaning.statistic, int(event.step), float(event.value))


def _take_histograms(found: _Gathered, tag: str, events: Sequence[Any]) -> None:
    meaning = of_histogram(tag)
    if isinstance(meaning, str):
        found.left[tag] = meaning
        return
    assert meaning.layer is not None  # noqa: S101 - of a histogram it is told
    found.sizes[meaning.layer] = max(int(event.histogram_value.num) for event in events)
    if (meaning.tensor, "norm", meaning.layer) in found.series:
        found.taken[tag] = f"the size of {meaning.layer}; its statistics are there as scalars"
        return
    found.exact = False
    found.taken[tag] = f"{meaning.tensor} {meaning.layer}: mean, std, norm, max_abs exactly, mean_abs from its buckets"
    for event in events:
        for statistic, value in zip(_DISTRIBUTION, distribution(event.histogram_value), strict=True):
            found.put(meaning, statistic, int(event.step), value)


def distribution(histogram: Any) -> tuple[float, ...]:
    """mean_abs, mean, std, norm, max_abs, zero_fraction (NaN), nonfinite_count (0: it holds no others)."""
    count = histogram.num
    if not count:
        return (math.nan,) * len(_DISTRIBUTION)
    mean = histogram.sum / count
    variance = max(histogram.sum_squares / count - mean * mean, 0.0)
    limits = np.clip(np.asarray(histogram.bucket_limit, np.float64), histogram.min, histogram.max)
    middle = (np.concatenate([[histogram.min], limits[:-1]]) + limits) / 2
    numbers = np.asarray(histogram.bucket, np.float64)
    mean_abs = float(np.dot(np.abs(middle), numbers) / count)
    largest = max(abs(histogram.min), abs(histogram.max))
    return mean_abs, mean, math.sqrt(variance), math.sqrt(histogram.sum_squares), largest, math.nan, 0.0


def _imported(found: _Gathered, directory: Path) -> Imported:
    layers = list(dict.fromkeys(layer for _, _, layer in found.series if layer is not None))
    if not layers:
        raise NothingToImport(
            f"Nothing in {directory} tells of a layer's gradients: there are {len(found.left)} other tags. Histograms "
            "are known by names like fc1.weight.grad or gradients/fc1.weight."
        )
    blocks: dict[Tensor, StatisticsBlock] = {}
    for tensor in dict.fromkeys(tensor for tensor, _, _ in found.series):
        blocks[tensor] = _block(found.series, tensor, [None] if tensor in ("metrics", "evaluation") else layers)
    blocks.pop("evaluation", None)  # a run's loop reports no test set
    steps = np.unique(np.concatenate([block.steps for block in blocks.values()]))
    every = int(np.gcd.reduce(steps)) if steps.any() else 1
    sizes = [found.sizes.get(layer, 1) for layer in layers]
    return Imported(layers, sizes, blocks, found.taken, found.left, max(every, 1), int(steps[-1]) + 1, found.exact)


def _block(
    series: Mapping[tuple[Tensor, str, str | None], Mapping[int, float]], tensor: Tensor, layers: Sequence[str | None]
) -> StatisticsBlock:
    mine = {key: values for key, values in series.items() if key[0] == tensor}
    steps = np.array(sorted({step for values in mine.values() for step in values}), np.int64)
    place = {int(step): index for index, step in enumerate(steps)}
    known = names(tensor)
    out: npt.NDArray[np.float32] = np.full((len(known), len(layers), len(steps)), np.nan, np.float32)
    for (_, statistic, layer), values in mine.items():
        row = out[known.index(statistic), layers.index(layer)]
        for step, value in values.items():
            row[place[step]] = value
    return StatisticsBlock(steps, out)
