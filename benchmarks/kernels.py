"""What the compiled statistics take an element: distribution, with its histogram, weights with their update ratio."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from benchmarks.results import Figure, Result, Row, Table, command
from benchmarks.timing import repeatedly
from gradprobe.histogram import BINS
from gradprobe.probe import native, warm_up

Floats = npt.NDArray[np.float32]

#: Layers as large as the classic network's first, and as a hidden one of the wide network.
_SIZES = (7_840, 262_144)
_SHARES_OF_ZEROS = (0.0, 0.7)
_AT_ONCE = 20


def run(quick: bool) -> Result:
    """One layer of each size, in one thread, in the cache that it fits."""
    warm_up()
    repetitions = 1 if quick else 200
    rows = [
        Row(f"{size:,} elements, {zeros:.0%} of them zero", _figures(_layer(size, zeros), repetitions))
        for size in _SIZES
        for zeros in _SHARES_OF_ZEROS
    ]
    return Result("kernels", [Table("nanoseconds an element, cpu, one thread", rows)])


def _layer(size: int, zeros: float) -> Floats:
    chance = np.random.default_rng(size)
    layer = chance.standard_normal(size).astype(np.float32) * np.float32(1e-3)
    layer[chance.random(size) < zeros] = 0.0
    return layer


def _figures(layer: Floats, repetitions: int) -> dict[str, Figure]:
    address, size = np.array([layer.ctypes.data]), np.array([layer.size])
    out, table, scratch = np.empty((7, 1)), np.zeros(2 * BINS, np.uint32), np.empty(layer.size, np.float32)
    bins, counts, lengths = np.empty(BINS + 1, np.uint16), np.empty(BINS + 1, np.uint32), np.zeros(1, np.uint16)
    before, ratios = layer.copy(), np.empty(1)

    def measure(counting: bool) -> None:
        native.measure(address, size, 1.0, out, counting, table, scratch, bins, counts, lengths)

    actions: dict[str, Callable[[], object]] = {
        "distribution": lambda: measure(False),
        "with histogram": lambda: measure(True),
        "weights and update ratio": lambda: native.advance(address, size, before, ratios, out),
    }
    return {name: _nanoseconds(action, repetitions) / layer.size for name, action in actions.items()}


def _nanoseconds(action: Callable[[], object], repetitions: int) -> float:
    def several() -> None:
        for _ in range(_AT_ONCE):
            action()

    return repeatedly(several, repetitions).least / _AT_ONCE * 1e9


if __name__ == "__main__":
    command(run)
