"""What a watched loop sends: statistics and histograms of a range of steps, as arrays in base64.

Arrays are little-endian and not compressed, so that a body's size bounds what it can take to read. A range that was
sent before is known by its steps, so sending it again changes nothing.
"""

import base64
import binascii
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.histogram import BINS
from gradprobe.parts.model import SpecModel, Whole
from gradprobe.parts.text import TELL_STORABLE, Storable
from gradprobe.statistics import STATISTICS, Tensor

MOST_STEP: Final = 1_000_000_000
#: What a run may report: an experiment's series but the test set's.
ReportedTensor = Literal[
    "weight_gradients", "clipped_weight_gradients", "output_gradients", "weights", "activations", "metrics"
]
CountedTensor = Literal["weight_gradients", "output_gradients"]
Encoded = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$", description="Base64, little-endian.")]
Step = Annotated[int, Field(ge=0, le=MOST_STEP), Whole]
ReportedSteps = Annotated[tuple[Step, ...], Field(min_length=1, max_length=100_000, strict=False)]


class ReportedStatistics(SpecModel):
    """`values`: float32 [statistic, layer, step], in the order of the tensor's definition."""

    steps: ReportedSteps
    values: Encoded


class ReportedCounts(SpecModel):
    """Sparse histograms [step, layer, 4096]: each row's `lengths` (uint16), then `bins` (uint16), `counts` (uint32)."""

    steps: ReportedSteps
    lengths: Encoded
    bins: Encoded
    counts: Encoded


class Report(SpecModel):
    """All that was recorded of the steps start ≤ t < stop; updates go on at `stop`."""

    start: Step
    stop: Annotated[int, Field(ge=1, le=MOST_STEP)]
    statistics: dict[ReportedTensor, ReportedStatistics] = Field(default_factory=dict)
    counts: dict[CountedTensor, ReportedCounts] = Field(default_factory=dict)

    @classmethod
    def of(
        cls, start: int, stop: int, statistics: dict[Tensor, StatisticsBlock], counts: dict[Tensor, CountsBlock]
    ) -> Self:
        """What was measured, to be sent."""
        document: dict[str, Any] = {
            "start": start,
            "stop": stop,
            "statistics": {
                tensor: {"steps": block.steps.tolist(), "values": _encode(block.values, "<f4")}
                for tensor, block in statistics.items()
            },
            "counts": {
                tensor: {
                    "steps": block.steps.tolist(),
                    "lengths": _encode(np.diff(block.starts), "<u2"),
                    "bins": _encode(block.bins, "<u2"),
                    "counts": _encode(block.counts, "<u4"),
                }
                for tensor, block in counts.items()
            },
        }
        return cls.model_validate(document)

    def decoded(self, layers: int) -> tuple[dict[Tensor, StatisticsBlock], dict[Tensor, CountsBlock]]:
        """As blocks of a run with so many layers.

        Raises:
            ValidationError: steps out of order or range, or arrays that do not fit them.
        """
        statistics: dict[Tensor, StatisticsBlock] = {}
        counts: dict[Tensor, CountsBlock] = {}
        for tensor, found in self.statistics.items():
            place = ("statistics", tensor)
            steps = self._steps(found.steps, place)
            shape = len(STATISTICS[tensor]), 1 if tensor == "metrics" else layers, len(steps)
            values = _decode(found.values, "<f4", int(np.prod(shape)), (*place, "values"))
            statistics[tensor] = StatisticsBlock(steps, values.astype(np.float32).reshape(shape))
        for counted, sparse in self.counts.items():
            counts[counted] = self._counts(sparse, layers, ("counts", counted))
        return statistics, counts

    def _steps(self, given: tuple[int, ...], place: tuple[str, ...]) -> npt.NDArray[np.int64]:
        steps = np.array(given, np.int64)
        if steps[0] < self.start or steps[-1] >= self.stop or (np.diff(steps) <= 0).any():
            _refuse((*place, "steps"), "steps", "steps must ascend, and lie within start ≤ t < stop")
        return steps

    def _counts(self, found: ReportedCounts, layers: int, place: tuple[str, ...]) -> CountsBlock:
        steps = self._steps(found.steps, place)
        lengths = _decode(found.lengths, "<u2", len(steps) * layers, (*place, "lengths")).astype(np.int64)
        total = int(lengths.sum())
        bins = _decode(found.bins, "<u2", total, (*place, "bins")).astype(np.uint16)
        counts = _decode(found.counts, "<u4", total, (*place, "counts")).astype(np.uint32)
        if (bins >= BINS).any() or (counts == 0).any():
            _refuse((*place, "bins"), "bins", f"bins are below {BINS}, and none that is named is empty")
        return CountsBlock(steps, layers, np.concatenate([[0], np.cumsum(lengths)]), bins, counts)


class End(SpecModel):
    """How a loop ended: it ran to its end, or an error ended it."""

    status: Literal["succeeded", "failed"] = "succeeded"
    message: Annotated[str, Field(max_length=2000, json_schema_extra=TELL_STORABLE), Storable] | None = None


def _encode(values: npt.NDArray[Any], kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode()


def _decode(text: str, kind: str, count: int, place: tuple[str, ...]) -> npt.NDArray[Any]:
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        raw = b""
    if len(raw) != count * np.dtype(kind).itemsize:
        _refuse(place, "array_size", f"this array has {count} elements of {np.dtype(kind).itemsize} bytes, in base64")
    return np.frombuffer(raw, dtype=kind)


def _refuse(place: tuple[str, ...], code: str, message: str) -> None:
    fault = InitErrorDetails(type=PydanticCustomError(code, message), loc=place, input=None)
    raise ValidationError.from_exception_data("Report", [fault])
