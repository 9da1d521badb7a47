"""All that is exported of one experiment, read from the store, in bounded memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gradprobe import __version__
from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.diagnosis import diagnose
from gradprobe.errors import ExportTooLarge
from gradprobe.statistics import HISTOGRAM_TENSORS, STATISTICS, Tensor
from gradprobe.store import measurements
from gradprobe.store.experiments import Record
from gradprobe.store.reader import Reader
from gradprobe.subject import subject_of

#: Numbers that an export may hold: 80 MB as float32.
MOST_VALUES: Final = 20_000_000
LAYER_TENSORS: Final[tuple[Tensor, ...]] = (
    "weight_gradients",
    "clipped_weight_gradients",
    "output_gradients",
    "weights",
    "activations",
)


@dataclass(frozen=True, slots=True)
class Contents:
    """One experiment. Statistics [statistic, layer, step] by tensor, histograms by tensor, what is not there left out.

    `diagnosis` is the document that the service gives; None where nothing was measured.
    """

    record: Record
    statistics: Mapping[Tensor, StatisticsBlock]
    counts: Mapping[Tensor, CountsBlock]
    diagnosis: Mapping[str, Any] | None

    @property
    def layers(self) -> Sequence[str]:
        """The layers' names, input side first."""
        return [layer.name for layer in self.record.layers]

    @property
    def title(self) -> str:
        """How a picture or a page is headed."""
        return self.record.name or self.record.id

    def about(self) -> dict[str, Any]:
        """What a file says of where its numbers come from."""
        record = self.record
        return {
            "id": record.id,
            "name": record.name,
            "tags": record.tags,
            "status": record.status.value,
            "verdict": record.verdict,
            "iteration": record.iteration,
            "iterations": record.iterations,
            "result": record.result,
            "spec": record.spec,
            "provenance": record.provenance,
            "release": __version__,
        }


@dataclass(frozen=True, slots=True)
class Wish:
    """What a form needs: the range of iterations start ≤ t < stop, and how many histograms at most (None: all)."""

    start: int = 0
    stop: int | None = None
    histograms: int | None = 0
    diagnosis: bool = False


def gather(reader: Reader, record: Record, wish: Wish) -> Contents:
    """Read what is wanted of an experiment, or of what it has measured so far.

    Raises:
        ExportTooLarge: the range holds more numbers than one file may.
        CorruptBlock: a stored block is damaged.
    """
    _require_room(record, wish)
    wanted: list[Tensor] = [*LAYER_TENSORS, "metrics", "evaluation"]
    found = {tensor: reader.statistics(tensor, wish.start, wish.stop) for tensor in wanted}
    statistics = {tensor: block for tensor, block in found.items() if block is not None and len(block.steps)}
    counts: dict[Tensor, CountsBlock] = {}
    if wish.histograms is None or wish.histograms > 0:
        for tensor in HISTOGRAM_TENSORS:
            block = reader.counts(tensor, wish.start, wish.stop)
            if block is not None and len(block.steps):
                counts[tensor] = _thinned(block, wish.histograms)
    return Contents(record, statistics, counts, _diagnosed(reader, record) if wish.diagnosis else None)


def _require_room(record: Record, wish: Wish) -> None:
    stop = record.iteration if wish.stop is None else min(wish.stop, record.iteration)
    steps = max(0, stop - wish.start) // int(record.spec["recording"]["every"]) + 1
    values = steps * len(record.layers) * sum(len(STATISTICS[tensor]) for tensor in LAYER_TENSORS)
    if values > MOST_VALUES:
        share = max(1, (stop - wish.start) * MOST_VALUES // values)
        raise ExportTooLarge(
            f"That would be {values:,} numbers, and a file may hold {MOST_VALUES:,}; "
            f"ask for about {share:,} iterations at a time with start and stop."
        )


def _thinned(block: CountsBlock, most: int | None) -> CountsBlock:
    """At most so many of its steps, first and last among them, evenly apart."""
    if most is None or len(block.steps) <= most:
        return block
    chosen = np.unique(np.linspace(0, len(block.steps) - 1, most).round().astype(np.int64))
    parts = [block.between(int(step), int(step) + 1) for step in block.steps[chosen]]
    return CountsBlock.join(parts)


def _diagnosed(reader: Reader, record: Record) -> dict[str, Any] | None:
    measured = measurements.read(reader, subject_of(record.spec))
    return diagnose(measured).document() if measured.blocks else None
