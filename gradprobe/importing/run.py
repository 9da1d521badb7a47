"""What is known of a training that another tool recorded, as a run's spec."""

from collections.abc import Mapping
from typing import get_args

import numpy as np

from gradprobe.importing.tensorboard import Imported
from gradprobe.parts.watched import (
    IMPORTED,
    WatchedLayer,
    WatchedLoss,
    WatchedNetwork,
    WatchedOptimizer,
    WatchedTraining,
)
from gradprobe.spec import Recording, TensorName
from gradprobe.statistics import names
from gradprobe.subject import WatchedSpec

_UNKNOWN = "its event files tell names and sizes of layers, but no shapes, activations or initialization"


def spec_of(found: Imported, name: str, tags: Mapping[str, str], classes: int | None, batch_size: int) -> WatchedSpec:
    """The spec of an imported run.

    Args:
        found: what was read.
        name, tags: what the run is called.
        classes: of the cross-entropy that the loss is; None where it is another one.
        batch_size: of the training, where it is known.
    """
    layers = [
        WatchedLayer(name=layer, weight_shape=(1, max(size, 1)), output_shape=(1,))
        for layer, size in zip(found.layers, found.sizes, strict=True)
    ]
    recorded: tuple[TensorName, ...] = tuple(tensor for tensor in get_args(TensorName) if tensor in found.blocks)
    return WatchedSpec(
        name=name,
        tags=dict(tags),
        network=WatchedNetwork(module=IMPORTED, measured=tuple(layers), unknown=_UNKNOWN),
        optimizer=WatchedOptimizer(name="unknown", learning_rate=_metric(found, "learning_rate", 0.0)),
        training=WatchedTraining(iterations=found.stop, batch_size=batch_size),
        loss=WatchedLoss(recorded=not np.isnan(_metric(found, "loss", np.nan)), classes=classes),
        recording=Recording(every=found.every, histograms_every=1_000_000, tensors=recorded),
    )


def _metric(found: Imported, name: str, otherwise: float) -> float:
    """Its first value that is a number."""
    block = found.blocks.get("metrics")
    if block is None:
        return otherwise
    values = block.values[names("metrics").index(name), 0]
    known = values[np.isfinite(values)]
    return float(known[0]) if len(known) else otherwise
