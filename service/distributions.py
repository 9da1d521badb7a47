"""Histograms and quantiles to JSON, summed over buckets of steps where fewer points are asked for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gradprobe.blocks import CountsBlock
from gradprobe.histogram import (
    BINS,
    NEGATIVE_INFINITY,
    NOT_A_NUMBER,
    POSITIVE_INFINITY,
    ZERO,
    linear_grid,
    occupied_grid,
    quantiles,
)
from gradprobe.store.experiments import Record
from service.columns import Columns, document_head, layer_head, no_steps
from service.reduction import NONE, Range, summed_buckets, told

_NOT_FINITE = [POSITIVE_INFINITY, NEGATIVE_INFINITY, NOT_A_NUMBER]

Integers = npt.NDArray[np.int64]


def histogram_document(
    record: Record,
    columns: Columns,
    block: CountsBlock | None,
    wanted: Range,
    bins: int | None,
    common: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """A `HistogramDocument`; each layer on the part of the fixed grid that it occupies, or on `bins` equal bins.

    `common` is the schedule to cut by, where it is not the experiment's own.
    """
    if block is None:
        empty: dict[str, Any] = {"edges": [], "counts": [], "zero": [], "nonfinite": []}
        layers = [layer_head(record.layers[position], columns.tensor) | empty for position in columns.layers]
        head = document_head(record, no_steps(), told(NONE, 0, 0, 1))
        return head | {"of": columns.of, "recorded": [], "layers": layers}
    point, reduction = summed_buckets(block, wanted, common or schedule(record))
    layers = [
        layer_head(record.layers[position], columns.tensor) | _layer_counts(block, position, point, bins)
        for position in columns.layers
    ]
    head = document_head(record, _first_steps(block, point), reduction)
    return head | {"of": columns.of, "recorded": np.bincount(point), "layers": layers}


def quantile_columns(
    record: Record, columns: Columns, block: CountsBlock | None, wanted: Range, shares: Sequence[float]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`Quantiles`, and what is not finite in them."""
    names = [str(share) for share in shares]
    if block is None:
        layers = [
            {"name": record.layers[position].name, "values": {name: [] for name in names}}
            for position in columns.layers
        ]
        return {"steps": no_steps(), "layers": layers, "reduction": told(NONE, 0, 0, 1)}, []
    point, reduction = summed_buckets(block, wanted, schedule(record))
    steps = _first_steps(block, point)
    layers, nonfinite = [], []
    for position in columns.layers:
        step, number, count = block.of_layer(position)
        values = quantiles(point[step], number, count, len(steps), np.asarray(shares)).astype(np.float32)
        layer = record.layers[position].name
        layers.append({"name": layer, "values": dict(zip(names, values, strict=True))})
        nonfinite += [
            {
                "layer": layer,
                "step": int(steps[place]),
                "statistic": f"quantile_{names[share]}",
                "value": str(float(values[share, place])),
                "count": 1,
            }
            for share, place in np.argwhere(~np.isfinite(values)).tolist()
        ]
    return {"steps": steps, "layers": layers, "reduction": reduction}, nonfinite


def schedule(record: Record) -> tuple[int, int]:
    """How often histograms are recorded, and over how many iterations."""
    return int(record.spec["recording"]["histograms_every"]), record.iterations


def _first_steps(block: CountsBlock, point: Integers) -> Integers:
    return block.steps[np.flatnonzero(np.diff(point, prepend=-1))]


def _layer_counts(block: CountsBlock, layer: int, point: Integers, bins: int | None) -> dict[str, Any]:
    step, number, count = block.of_layer(layer)
    points = int(point[-1]) + 1 if len(point) else 0
    used = np.zeros(BINS, dtype=np.bool_)
    used[number] = True
    edges, position_of = occupied_grid(used) if bins is None else linear_grid(used, bins)
    width = max(len(edges) - 1, 0)
    row, place = point[step], position_of[number]
    interval = place >= 0
    counts = _added(row[interval] * width + place[interval], count[interval], points * width).reshape(points, width)
    special = {"zero": number == ZERO, "nonfinite": np.isin(number, _NOT_FINITE)}
    sums = {name: _added(row[mine], count[mine], points) for name, mine in special.items()}
    return {"edges": edges, "counts": counts, **sums}


def _added(place: Integers, count: npt.NDArray[np.uint32], length: int) -> Integers:
    # The weights are float64, which holds every sum of counts below 2**53.
    return np.bincount(place, weights=count, minlength=length).astype(np.int64)
