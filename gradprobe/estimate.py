"""What an experiment will take, before it is begun: seconds, memory and storage, from its spec alone.

The constants are those of `python -m benchmarks.estimates` (docs/bounds.md has its figures and says how far they are
off). They are for one thread of a CPU, and for the recording that costs most; a bound needs no more than that.
"""

from dataclasses import dataclass
from typing import Final

from gradprobe.parts.geometry import INPUTS
from gradprobe.spec import Spec
from gradprobe.statistics import STATISTICS

TRAINING_IMAGES: Final = 60_000
TEST_IMAGES: Final = 10_000
_FLOAT: Final = 4

#: Seconds of one iteration: for itself, for each layer, for a million multiply-adds (forward and backward), for a
#: million parameters (the optimizer); and what recording it costs for each layer and for a million recorded elements.
SECONDS: Final = {
    "iteration": 300e-6,
    "layer": 50e-6,
    "multiply_adds": 30e-6,
    "parameters": 1e-3,
    "recorded_layer": 6e-6,
    "recorded_elements": 2.2e-3,
}
#: Bytes of a worker that holds MNIST and has no network yet. Then copies of each parameter (weight, gradient, two
#: moments, the weight before the step, scratch) and of each output of one batch (z, h, their gradients, scratch).
PROCESS_BYTES: Final = 700 * 1024 * 1024
PARAMETER_COPIES: Final = 8
OUTPUT_COPIES: Final = 9
#: Bytes on disk: of the rows; of a value of a statistic, with its share of the coarser levels; of a layer's histogram.
ROWS_BYTES: Final = 16_384
VALUE_BYTES: Final = 5.0
HISTOGRAM_BYTES: Final = 400.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """What an experiment will take; `unit_iterations` is depth × width × iterations."""

    parameters: int
    unit_iterations: int
    seconds: float
    memory_bytes: int
    stored_bytes: int


def estimate(spec: Spec) -> Estimate:
    """What this spec will take, on one thread of a CPU."""
    network, training = spec.network, spec.training
    outputs = network.output_count * training.batch_size
    memory = PROCESS_BYTES + _FLOAT * (PARAMETER_COPIES * network.parameter_count + OUTPUT_COPIES * outputs)
    return Estimate(
        parameters=network.parameter_count,
        unit_iterations=network.depth * network.width * training.iterations,
        seconds=training.iterations * seconds_per_iteration(spec) + _evaluation_seconds(spec),
        memory_bytes=memory,
        stored_bytes=_stored_bytes(spec),
    )


def features(spec: Spec) -> dict[str, float]:
    """What one iteration has of each thing that `SECONDS` prices, recording spread over the iterations."""
    network, recording = spec.network, spec.recording
    elements = 2 * network.parameter_count + 2 * network.output_count * spec.training.batch_size
    return {
        "iteration": 1.0,
        "layer": float(network.depth),
        "multiply_adds": 3e-6 * network.multiply_adds * spec.training.batch_size,
        "parameters": 1e-6 * network.parameter_count,
        "recorded_layer": network.depth / recording.every,
        "recorded_elements": 1e-6 * elements / recording.every,
    }


def seconds_per_iteration(spec: Spec) -> float:
    """Of the loop, on one thread of a CPU."""
    return sum(SECONDS[name] * amount for name, amount in features(spec).items())


def _evaluation_seconds(spec: Spec) -> float:
    looks = 1 + (spec.training.iterations - 1) // spec.recording.evaluate_every
    images = TEST_IMAGES * (looks + 1) + TRAINING_IMAGES
    return images * (SECONDS["multiply_adds"] * 1e-6 * spec.network.multiply_adds + 1e-9 * INPUTS)


def _stored_bytes(spec: Spec) -> int:
    recording, depth = spec.recording, spec.network.depth
    steps = 1 + (spec.training.iterations - 1) // recording.every
    histograms = 1 + (spec.training.iterations - 1) // recording.histograms_every
    statistics = sum(len(STATISTICS[tensor]) for tensor in recording.tensors)
    if spec.gradient_clipping is not None and "weight_gradients" in recording.tensors:
        statistics += len(STATISTICS["clipped_weight_gradients"])
    values = statistics * depth + len(STATISTICS["metrics"])
    counted = sum(tensor in ("weight_gradients", "output_gradients") for tensor in recording.tensors)
    return int(ROWS_BYTES + VALUE_BYTES * values * steps + HISTOGRAM_BYTES * counted * depth * histograms)
