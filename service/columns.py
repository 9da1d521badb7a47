"""From blocks to JSON: columns of NumPy arrays as they are, without a Python object a point."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradprobe.blocks import StatisticsBlock
from gradprobe.statistics import Tensor, names
from gradprobe.store.experiments import Layer, Record
from service.reduction import Points, whole

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Columns:
    """What was asked of one tensor: positions of layers and of statistics, in the order of their definition."""

    tensor: Tensor
    of: str
    layers: Sequence[int]
    statistics: Sequence[int]


def series_document(record: Record, columns: Columns, points: Points | None) -> dict[str, Any]:
    """A `SeriesDocument` without quantiles; where nothing is stored, one of no steps.

    The points hold the statistics asked for, and all layers.
    """
    present = points or _nothing(columns, len(record.layers))
    layers = [
        layer_head(record.layers[position], columns.tensor)
        | {"statistics": dict(zip(_named(columns), _rows(present.block, position), strict=True))}
        for position in columns.layers
    ]
    layer_names = {position: record.layers[position].name for position in columns.layers}
    return document_head(record, present.block.steps, present.reduction) | {
        "of": columns.of,
        "layers": layers,
        "nonfinite": _nonfinite(present, _named(columns), layer_names),
        "quantiles": None,
    }


def metrics_document(record: Record, metrics: Points | None, evaluation: Points | None) -> dict[str, Any]:
    """A `MetricsDocument`."""
    nonfinite: list[dict[str, Any]] = []
    parts: dict[str, dict[str, Any]] = {}
    found: list[tuple[Tensor, Points | None]] = [("metrics", metrics), ("evaluation", evaluation)]
    for tensor, points in found:
        columns = Columns(tensor, tensor, [0], range(len(names(tensor))))
        present = points or _nothing(columns, 1)
        values = dict(zip(_named(columns), _rows(present.block, 0), strict=True))
        parts[tensor] = {"steps": present.block.steps, "reduction": present.reduction, **values}
        nonfinite += _nonfinite(present, _named(columns), {0: tensor})
    steps, reduction = parts["metrics"].pop("steps"), parts["metrics"].pop("reduction")
    return document_head(record, steps, reduction) | {**parts, "nonfinite": nonfinite}


def document_head(record: Record, steps: Integers, reduction: dict[str, Any]) -> dict[str, Any]:
    """What every document begins with."""
    return {"experiment_id": record.id, "status": record.status, "steps": steps, "reduction": reduction}


def layer_head(layer: Layer, tensor: Tensor) -> dict[str, Any]:
    """A layer's name, and the shape and size of what was measured of it."""
    shape = layer.output_shape if tensor in ("output_gradients", "activations") else layer.weight_shape
    return {"name": layer.name, "shape": shape, "size": math.prod(shape)}


def no_steps() -> Integers:
    """Where nothing is stored."""
    return np.zeros(0, dtype=np.int64)


def _named(columns: Columns) -> list[str]:
    known = names(columns.tensor)
    return [known[position] for position in columns.statistics]


def _rows(block: StatisticsBlock, layer: int) -> list[npt.NDArray[np.float32]]:
    return [np.ascontiguousarray(row) for row in block.values[:, layer]]


def _nonfinite(points: Points, statistics: Sequence[str], layers: dict[int, str]) -> list[dict[str, Any]]:
    """Each value that JSON can't hold, by step, then layer, then statistic."""
    return [
        {
            "layer": layers[mark.layer],
            "step": int(points.block.steps[mark.step]),
            "statistic": statistics[mark.statistic],
            "value": mark.value,
            "count": mark.count,
        }
        for mark in points.marks
        if mark.layer in layers
    ]


def _nothing(columns: Columns, layers: int) -> Points:
    block = StatisticsBlock(no_steps(), np.zeros((len(columns.statistics), layers, 0), dtype=np.float32))
    return whole(block)
