"""Twins without torch: backpropagation by hand in float64, correctly rounded sums, slopes by differences.

Nothing here shares code with what it judges; it follows the definitions in `gradprobe.statistics`.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Wide = npt.NDArray[np.float64]
Function = Callable[[Wide], Wide]

NAN = float("nan")
LEAKY_SLOPE = 0.01
ALPHA, LAMBDA = 1.6732632423543772, 1.0507009873554805

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(z: Wide) -> Wide:
    return 1.0 / (1.0 + np.exp(-z))


def _leaky(slope: float) -> tuple[Function, Function]:
    return (lambda z: np.where(z > 0, z, slope * z)), (lambda z: np.where(z > 0, 1.0, slope))


def _elu(scale: float, alpha: float) -> tuple[Function, Function]:
    return (
        lambda z: scale * np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0))),
        lambda z: scale * np.where(z > 0, 1.0, alpha * np.exp(np.minimum(z, 0))),
    )


#: φ and φ′; at a kink the slope from the left, as torch takes it.
ACTIVATIONS: dict[str, tuple[Function, Function]] = {
    "sigmoid": (_sigmoid, lambda z: _sigmoid(z) * _sigmoid(-z)),
    "tanh": (np.tanh, lambda z: 1.0 / np.cosh(z) ** 2),
    "relu": _leaky(0.0),
    "leaky_relu": _leaky(LEAKY_SLOPE),
    "elu": _elu(1.0, 1.0),
    "selu": _elu(LAMBDA, ALPHA),
    "gelu": (
        lambda z: z * (1 + _erf(z / math.sqrt(2))) / 2,
        lambda z: (1 + _erf(z / math.sqrt(2))) / 2 + z * np.exp(-z * z / 2) / math.sqrt(2 * math.pi),
    ),
    "silu": (lambda z: z * _sigmoid(z), lambda z: _sigmoid(z) + z * _sigmoid(z) * _sigmoid(-z)),
    "softplus": (lambda z: np.logaddexp(0.0, z), _sigmoid),
    "hardtanh": (lambda z: np.clip(z, -1.0, 1.0), lambda z: np.where(np.abs(z) < 1.0, 1.0, 0.0)),
    "identity": (lambda z: z, np.ones_like),
}
KINKS: dict[str, tuple[float, ...]] = {
    "relu": (0.0,),
    "leaky_relu": (0.0,),
    "prelu": (0.0,),
    "selu": (0.0,),
    "hardtanh": (-1.0, 1.0),
}


def activation(name: str, slope: float = 0.0) -> tuple[Function, Function]:
    """φ and φ′; `slope` is the trained one of PReLU."""
    return _leaky(slope) if name == "prelu" else ACTIVATIONS[name]


def slope_by_differences(function: Function, z: Wide, width: float = 1e-6) -> Wide:
    """φ′(z) from two values of φ, good to about 1e-9."""
    return (function(z + width) - function(z - width)) / (2 * width)


@dataclass
class Pass:
    """One batch's forward and backward pass; a list has one entry a layer."""

    loss: float
    accuracy: float
    outputs: list[Wide]
    activations: list[Wide]
    deltas: list[Wide]
    weight_gradients: list[Wide]
    gradient_norm: float

    def near_a_kink(self, name: str) -> bool:
        """Whether float32 may have come down on the other side of a kink."""
        distances = [np.abs(z - kink) for z in self.outputs[:-1] for kink in KINKS.get(name, ())]
        return any(bool(((distance > 0) & (distance < 1e-6)).any()) for distance in distances)


def backpropagate(  # the whole of it on one screen
    images: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    weights: list[npt.NDArray[np.float32]],
    biases: list[npt.NDArray[np.float32]],
    functions: list[tuple[Function, Function]],
) -> Pass:
    """δ of the output layer is softmax − one-hot; of each layer before, (δ W) φ′(z); the weights' gradient δᵀh / B."""
    count = len(images)
    wide = [weight.astype(np.float64) for weight in weights]
    outputs: list[Wide] = []
    hidden: list[Wide] = [images.astype(np.float64)]
    for index, (weight, bias) in enumerate(zip(wide, biases, strict=True)):
        outputs.append(hidden[-1] @ weight.T + bias.astype(np.float64))
        hidden.append(functions[index][0](outputs[-1]) if index < len(functions) else outputs[-1])
    logits = outputs[-1] - outputs[-1].max(axis=1, keepdims=True)
    logarithms = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    deltas = [np.exp(logarithms) - np.eye(logits.shape[1])[labels]]
    squares = 0.0
    for index in reversed(range(len(functions))):
        upstream = deltas[0] @ wide[index + 1]
        deltas.insert(0, upstream * functions[index][1](outputs[index]))
    gradients = [delta.T @ before / count for delta, before in zip(deltas, hidden[:-1], strict=True)]
    squares = math.fsum(float((g * g).sum()) for g in [*gradients, *(delta.sum(0) / count for delta in deltas)])
    return Pass(
        loss=-math.fsum(logarithms[np.arange(count), labels]) / count,
        accuracy=sum(int(row.argmax()) == label for row, label in zip(logits, labels, strict=True)) / count,
        outputs=outputs,
        activations=hidden[1:],
        deltas=deltas,
        weight_gradients=gradients,
        gradient_norm=math.sqrt(squares),
    )


def prelu_gradients(result: Pass, weights: list[npt.NDArray[np.float32]]) -> list[float]:
    """∂L/∂a of each layer's trained slope a: the mean over the batch of Σ (δ W) min(z, 0)."""
    return [
        float((delta @ weight.astype(np.float64) * np.minimum(output, 0.0)).sum()) / len(delta)
        for output, (_, delta), weight in zip(result.outputs[:-1], pairwise(result.deltas), weights[1:], strict=True)
    ]


def distribution(elements: Iterable[float]) -> dict[str, float]:
    """`statistics.DISTRIBUTION`, element by element; every sum is correctly rounded."""
    values = list(elements)
    finite = [value for value in values if math.isfinite(value)]
    result = {"nonfinite_count": float(len(values) - len(finite))}
    if not finite:
        return result | dict.fromkeys(("mean_abs", "mean", "std", "norm", "max_abs", "zero_fraction"), NAN)
    mean = math.fsum(finite) / len(finite)
    return result | {
        "mean_abs": math.fsum(map(abs, finite)) / len(finite),
        "mean": mean,
        "std": math.sqrt(math.fsum((value - mean) ** 2 for value in finite) / len(finite)),
        "norm": math.sqrt(math.fsum(value * value for value in finite)),
        "max_abs": max(map(abs, finite)),
        "zero_fraction": sum(value == 0 for value in finite) / len(finite),
    }


def tolerances(expected: dict[str, float], relative: float) -> dict[str, float]:
    """How far off each statistic may be. Sums cancel, so a mean is judged by the size of what was summed."""
    spread = math.hypot(expected["std"], expected["mean"])
    scales = {"mean_abs": "mean_abs", "mean": "mean_abs", "norm": "norm", "max_abs": "max_abs"}
    allowed = {name: relative * expected[scale] for name, scale in scales.items()}
    return allowed | {"std": relative * spread, "zero_fraction": relative, "nonfinite_count": 0.0}


def differences(
    actual: dict[str, float], expected: dict[str, float], relative: float
) -> dict[str, tuple[float, float]]:
    """The statistics that are too far off: name → (actual, expected)."""
    allowed = tolerances(expected, relative)
    return {
        name: (actual[name], wanted)
        for name, wanted in expected.items()
        if not _agree(actual[name], wanted, allowed[name])
    }


def _agree(actual: float, expected: float, allowed: float) -> bool:
    if math.isnan(expected):
        return math.isnan(actual)
    return actual == expected or abs(actual - expected) <= allowed


def count_by_bounds(elements: Iterable[float], bins: Callable[[float], int]) -> dict[int, int]:
    """Counts by bin, one element after the other."""
    counts: dict[int, int] = {}
    for element in elements:
        counts[bins(element)] = counts.get(bins(element), 0) + 1
    return counts
