"""From blocks to JSON: columns of NumPy arrays as they are, without a Python object a point."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.histogram import BINS, NEGATIVE_INFINITY, NOT_A_NUMBER, POSITIVE_INFINITY, ZERO, occupied_grid
from gradprobe.statistics import Tensor, names
from gradprobe.store.experiments import Layer, Record

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Columns:
    """What was asked of one tensor: its block, and positions on the block's axes of layers and statistics."""

    tensor: Tensor
    of: str
    layers: Sequence[int]
    statistics: Sequence[int]


def series_document(record: Record, columns: Columns, block: StatisticsBlock | None) -> dict[str, Any]:
    """A `SeriesDocument`; without a block, one of no steps."""
    present = block or _empty(columns.tensor, len(record.layers))
    chosen = [record.layers[position] for position in columns.layers]
    layers = [
        _layer_head(layer, columns.tensor) | {"statistics": _named(present, columns, position)}
        for position, layer in zip(columns.layers, chosen, strict=True)
    ]
    return _head(record, present.steps) | {
        "of": columns.of,
        "layers": layers,
        "nonfinite": _nonfinite(present, columns, [layer.name for layer in chosen]),
    }


def metrics_document(
    record: Record, metrics: StatisticsBlock | None, evaluation: StatisticsBlock | None
) -> dict[str, Any]:
    """A `MetricsDocument`."""
    nonfinite: list[dict[str, Any]] = []
    parts: dict[str, dict[str, Any]] = {}
    blocks: list[tuple[Tensor, StatisticsBlock | None]] = [("metrics", metrics), ("evaluation", evaluation)]
    for tensor, block in blocks:
        columns = Columns(tensor, tensor, [0], range(len(names(tensor))))
        present = block or _empty(tensor, 1)
        parts[tensor] = {"steps": present.steps, **_named(present, columns, 0)}
        nonfinite += _nonfinite(present, columns, [tensor])
    steps = parts["metrics"].pop("steps")
    return _head(record, steps) | {**parts, "nonfinite": nonfinite}


def histogram_document(record: Record, columns: Columns, block: CountsBlock | None) -> dict[str, Any]:
    """A `HistogramDocument`; each layer on the part of the fixed grid that it occupies within these steps."""
    layers = [
        _layer_head(record.layers[position], columns.tensor) | _layer_counts(block, position)
        for position in columns.layers
    ]
    return _head(record, block.steps if block else _no_steps()) | {"of": columns.of, "layers": layers}


def _layer_counts(block: CountsBlock | None, layer: int) -> dict[str, Any]:
    if block is None:
        return {"edges": [], "counts": [], "zero": [], "nonfinite": []}
    step, number, count = block.of_layer(layer)
    used = np.zeros(BINS, dtype=np.bool_)
    used[number] = True
    edges, position_of = occupied_grid(used)
    place = position_of[number]
    interval = place >= 0
    counts = np.zeros((len(block.steps), max(len(edges) - 1, 0)), dtype=np.int64)
    counts[step[interval], place[interval]] = count[interval]
    return {
        "edges": edges,
        "counts": counts,
        "zero": _sum_by_step(block, step, count, number == ZERO),
        "nonfinite": _sum_by_step(
            block, step, count, np.isin(number, [POSITIVE_INFINITY, NEGATIVE_INFINITY, NOT_A_NUMBER])
        ),
    }


def _sum_by_step(
    block: CountsBlock, step: Integers, count: npt.NDArray[np.uint32], mine: npt.NDArray[np.bool_]
) -> Integers:
    total = np.zeros(len(block.steps), dtype=np.int64)
    np.add.at(total, step[mine], count[mine].astype(np.int64))
    return total


def _head(record: Record, steps: Integers) -> dict[str, Any]:
    count = len(steps)
    return {
        "experiment_id": record.id,
        "status": record.status,
        "steps": steps,
        "reduction": {"method": "none", "points": count, "of_points": count, "bucket": 1},
    }


def _layer_head(layer: Layer, tensor: Tensor) -> dict[str, Any]:
    shape = layer.weight_shape if tensor in ("weights", "weight_gradients") else layer.output_shape
    return {"name": layer.name, "shape": shape, "size": math.prod(shape)}


def _named(block: StatisticsBlock, columns: Columns, layer: int) -> dict[str, npt.NDArray[np.float32]]:
    known = names(columns.tensor)
    return {known[statistic]: np.ascontiguousarray(block.values[statistic, layer]) for statistic in columns.statistics}


def _nonfinite(block: StatisticsBlock, columns: Columns, layer_names: Sequence[str]) -> list[dict[str, Any]]:
    """Each value that JSON can't hold, by step, then layer, then statistic."""
    known = names(columns.tensor)
    chosen = block.values[np.ix_(columns.statistics, columns.layers)].transpose(2, 1, 0)
    return [
        {
            "layer": layer_names[layer],
            "step": int(block.steps[step]),
            "statistic": known[columns.statistics[statistic]],
            "value": str(float(chosen[step, layer, statistic])),
        }
        for step, layer, statistic in np.argwhere(~np.isfinite(chosen)).tolist()
    ]


def _empty(tensor: Tensor, layers: int) -> StatisticsBlock:
    return StatisticsBlock(_no_steps(), np.zeros((len(names(tensor)), layers, 0), dtype=np.float32))


def _no_steps() -> Integers:
    return np.zeros(0, dtype=np.int64)
