"""Poor initialization: units that start alike and stay alike, and a start far worse than a guess."""

from collections.abc import Iterator

import numpy as np

from gradprobe.diagnosis.findings import Finding, called
from gradprobe.diagnosis.measurements import Measurements
from gradprobe.diagnosis.thresholds import Thresholds


def judge(measured: Measurements, thresholds: Thresholds) -> Iterator[Finding]:
    """Of the first step: a hidden layer whose weights are all the same number gives all its units one gradient."""
    spread, steps = measured.series("weights", "std"), measured.steps("weights")
    if spread is None or not len(steps) or steps[0] != 0:
        return
    # The output layer may well begin at zero, as many networks' heads do: each of its units has an error of its own.
    spread = spread[:-1]
    alike = spread[:, 0] == 0.0
    if not alike.any():
        return
    names = measured.layer_names
    layers = [name for name, found in zip(names[:-1], alike, strict=True) if found]
    ended = np.flatnonzero((spread > 0).all(axis=0))
    last = int(steps[ended[0] - 1]) if len(ended) else int(steps[-1])
    evidence = {"weight_std": 0.0, "threshold": 0.0, "layers": len(layers)}
    yield Finding(
        "poor_initialization", "at_initialization", "critical", "symmetry", 0, last, not len(ended), len(steps),
        f"All weights of {called(layers[0])} are one number at the start: its units get one gradient and stay alike.",
        "constant_weights", tuple(layers), dict.fromkeys(layers, 1.0), evidence,
    )  # fmt: skip
