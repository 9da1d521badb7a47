"""Measurements made by hand: a healthy run as theory has it, and whatever a test puts in its place."""

from typing import Any

import numpy as np
import numpy.typing as npt

from gradprobe.blocks import StatisticsBlock
from gradprobe.diagnosis import Measurements
from gradprobe.spec import CLASSES, Spec
from gradprobe.statistics import STATISTICS, Tensor, names
from gradprobe.theory import predict

Array = npt.NDArray[np.float64]
RELU = {"activation": "relu", "initialization": "he_normal", "depth": 5, "width": 64}


def spec_of(network: dict[str, Any] | None = None, **parts: Any) -> Spec:
    return Spec.model_validate({"network": {**RELU, **(network or {})}, **parts})


class Made:
    """A run of S steps whose statistics a test may change before it is judged."""

    def __init__(self, spec: Spec, steps: int = 500, every: int = 1) -> None:
        self.spec = spec
        self.steps = np.arange(0, steps * every, every)
        depth, rng = spec.network.depth, np.random.default_rng(1)
        self.values: dict[Tensor, Array] = {
            tensor: np.zeros((len(kinds), 1 if tensor in ("metrics", "evaluation") else depth, steps))
            for tensor, kinds in STATISTICS.items()
            if tensor not in ("clipped_weight_gradients", "evaluation")
        }
        prediction = predict(spec)
        for index, layer in enumerate(prediction.layers):
            shape = spec.network.layers[index].weight_shape
            self.put("output_gradients", "norm", np.exp(0.5 * layer.log_delta_ratio), index)
            self.put("weights", "norm", np.sqrt(layer.weight_scale * shape[0]), index)
            self.put("activations", "saturated_fraction", layer.saturated_fraction, index)
            self.put("weights", "std", np.sqrt(layer.weight_scale / np.prod(shape[1:])), index)
        self.put("weights", "update_ratio", 2e-3)
        self.put("activations", "mean", 0.3)
        self.put("activations", "std", 0.4)
        self.put("weight_gradients", "norm", 0.1)
        self.put("weight_gradients", "mean_abs", 1e-3)
        noise = 1.0 + 0.02 * rng.standard_normal(steps)
        self.put("metrics", "loss", (0.3 + 2.0 * np.exp(-np.arange(steps) / (steps / 8))) * noise)
        self.put("metrics", "accuracy", 0.9)

    def put(self, tensor: Tensor, statistic: str, values: Any, layer: int | None = None, start: int = 0) -> "Made":
        """Set a statistic of one layer, or of all, from a column on."""
        rows = slice(None) if layer is None else layer
        self.values[tensor][names(tensor).index(statistic), rows, start:] = values
        return self

    def loss(self, values: Any) -> "Made":
        return self.put("metrics", "loss", values)

    @property
    def measurements(self) -> Measurements:
        blocks = {
            tensor: StatisticsBlock(self.steps.astype(np.int64), values.astype(np.float32))
            for tensor, values in self.values.items()
        }
        return Measurements(self.spec, blocks)

    def with_evaluations(self, steps: list[int], losses: list[float]) -> Measurements:
        found = self.measurements
        values = np.array([losses, [0.9] * len(losses)], np.float32)[:, None, :]
        blocks = {**found.blocks, "evaluation": StatisticsBlock(np.array(steps, np.int64), values)}
        return Measurements(self.spec, blocks)  # type: ignore[arg-type]


GUESS = float(np.log(CLASSES))
