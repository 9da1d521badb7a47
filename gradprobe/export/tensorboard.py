"""An event file that TensorBoard opens: every statistic as a scalar, every histogram with all its bins.

A file is a row of records: the length (uint64), its masked CRC-32C, an `Event` as protobuf, its masked CRC-32C;
https://github.com/tensorflow/tensorboard/blob/master/tensorboard/summary/writer/record_writer.py.
"""

import struct
from collections.abc import Iterator
from typing import Any, Final

import google_crc32c
import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2

from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.export.contents import LAYER_TENSORS, Contents
from gradprobe.export.tables import BIN_BOUNDS
from gradprobe.statistics import Tensor, names

_MASK: Final = 0xA282EAD8
_SMALLEST: Final = 2.0**-149
_TABS: Final[dict[Tensor, str]] = {tensor: tensor for tensor in LAYER_TENSORS}


def records(contents: Contents) -> Iterator[bytes]:
    """The file in parts, a step each, in order.

    Tags are `weight_gradients/mean_abs/layer1`, `metrics/loss`, and `weight_gradients/layer1` for histograms.
    """
    began = contents.record.started_at or contents.record.created_at
    yield _record(event_pb2.Event(wall_time=began, file_version="brain.Event:2"))
    series = [(tensor, block, _tags(contents, tensor)) for tensor, block in contents.statistics.items()]
    places = [{int(step): place for place, step in enumerate(block.steps)} for _, block, _ in series]
    counted = [
        (tensor, block, {int(step): place for place, step in enumerate(block.steps)})
        for tensor, block in contents.counts.items()
    ]
    steps = {int(step) for _, block, _ in series for step in block.steps}
    steps |= {int(step) for _, block, _ in counted for step in block.steps}
    times = _times(contents, began)
    for step in sorted(steps):
        summary = summary_pb2.Summary()
        for (_, block, tags), place in zip(series, places, strict=True):
            if step in place:
                _add_scalars(summary, tags, block, place[step])
        for tensor, counts, place in counted:
            if step in place:
                _add_histograms(summary, contents.layers, tensor, counts, place[step])
        yield _record(event_pb2.Event(wall_time=times.get(step, began), step=step, summary=summary))


def _tags(contents: Contents, tensor: Tensor) -> list[list[str]]:
    """[statistic][layer]."""
    if tensor not in LAYER_TENSORS:
        return [[f"{tensor}/{name}"] for name in names(tensor)]
    return [[f"{tensor}/{name}/{layer}" for layer in contents.layers] for name in names(tensor)]


def _add_scalars(summary: Any, tags: list[list[str]], block: StatisticsBlock, place: int) -> None:
    values = block.values[:, :, place]
    for statistic, layers in enumerate(tags):
        for layer, tag in enumerate(layers):
            summary.value.add(tag=tag, simple_value=float(values[statistic, layer]))


def _add_histograms(summary: Any, layers: Any, tensor: Tensor, block: CountsBlock, place: int) -> None:
    for layer, name in enumerate(layers):
        row = place * block.layers + layer
        part = slice(int(block.starts[row]), int(block.starts[row + 1]))
        message = histogram(block.bins[part], block.counts[part])
        if message is not None:
            summary.value.add(tag=f"{tensor}/{name}", histo=message)


def histogram(bins: Any, counts: Any) -> Any:
    """TensorBoard's message of one sparse histogram; None where nothing finite was counted.

    A bucket is what lies between two limits, so what is empty between two bins is a bucket of its own. TensorBoard
    reads limits as float32, so zero, a single value here, gets a bucket as wide as its smallest number.
    """
    low, high = BIN_BOUNDS[bins, 0], BIN_BOUNDS[bins, 1]
    finite = np.isfinite(low)
    order = np.argsort(low[finite], kind="stable")
    low, high, number = low[finite][order], high[finite][order], np.asarray(counts, np.float64)[finite][order]
    if not len(low):
        return None
    high = np.where(low == high, _SMALLEST, high)
    limits, buckets = [float(low[0])], [0.0]
    for left, right, count in zip(low.tolist(), high.tolist(), number.tolist(), strict=True):
        if left > limits[-1]:
            limits.append(left)
            buckets.append(0.0)
        limits.append(right)
        buckets.append(count)
    middle = np.where(low == 0, 0.0, (low + high) / 2)
    return summary_pb2.HistogramProto(
        min=float(low[0]),
        max=float(high[-1]),
        num=float(number.sum()),
        sum=float(np.dot(middle, number)),
        sum_squares=float(np.dot(middle * middle, number)),
        bucket_limit=limits,
        bucket=buckets,
    )


def _times(contents: Contents, began: float) -> dict[int, float]:
    block = contents.statistics.get("metrics")
    if block is None:
        return {}
    seconds = np.nan_to_num(block.values[names("metrics").index("seconds_per_iteration"), 0].astype(np.float64))
    every = np.diff(block.steps, prepend=block.steps[0])
    return dict(zip(block.steps.tolist(), (began + np.cumsum(seconds * np.maximum(every, 1))).tolist(), strict=True))


def _record(event: Any) -> bytes:
    data: bytes = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return b"".join((length, _checksum(length), data, _checksum(data)))


def _checksum(data: bytes) -> bytes:
    found = google_crc32c.value(data)
    return struct.pack("<I", (((found >> 15) | (found << 17 & 0xFFFFFFFF)) + _MASK) & 0xFFFFFFFF)
