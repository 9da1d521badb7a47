"""What the tags in TensorBoard's files mean: our own, those of `add_histogram` over parameters, and usual metrics."""

import re
from dataclasses import dataclass
from typing import Final

from gradprobe.statistics import HISTOGRAM_TENSORS, STATISTICS, Tensor, names

#: Tensors of layers that an import can fill.
_TENSORS: Final[tuple[Tensor, ...]] = (
    "weight_gradients",
    "clipped_weight_gradients",
    "output_gradients",
    "weights",
    "activations",
)
_GRADIENT: Final = re.compile(
    r"""^(?:
        (?:grad(?:ient)?s?[./_])(?P<before>.+?)           # gradients/fc1.weight
      | (?P<after>.+?)[./_]grad(?:ient)?s?                # fc1.weight.grad, fc1.weight_grad, fc1.weight/grad
    )(?:_\d+)?$""",
    re.VERBOSE | re.IGNORECASE,
)
_WEIGHT: Final = re.compile(r"^(?P<layer>.+?)[./](?:weight|kernel)(?:_\d+)?$", re.IGNORECASE)
_VECTOR: Final = re.compile(r"[./](?:bias|beta|gamma)$", re.IGNORECASE)
_METRICS: Final[dict[str, re.Pattern[str]]] = {
    "loss": re.compile(r"^(?:train(?:ing)?[/_.])?loss(?:[/_.](?:train(?:ing)?|step|batch))?$", re.IGNORECASE),
    "accuracy": re.compile(
        r"^(?:train(?:ing)?[/_.])?acc(?:uracy)?(?:[/_.](?:train(?:ing)?|step|batch))?$", re.IGNORECASE
    ),
    "learning_rate": re.compile(r"^(?:.*[/_.])?(?:lr|learning_rate)(?:[-/_.]\w+)?$", re.IGNORECASE),
    "gradient_norm": re.compile(r"^(?:.*[/_.])?(?:grad(?:ient)?_(?:total_)?norm|total_grad_norm)$", re.IGNORECASE),
}


@dataclass(frozen=True, slots=True)
class Meaning:
    """A tag's: a statistic of a tensor, or a histogram of it (statistic None); layer None for the run's own series."""

    tensor: Tensor
    statistic: str | None
    layer: str | None


def of_scalar(tag: str) -> Meaning | str:
    """What a scalar's tag means, or why it is left."""
    head, _, rest = tag.partition("/")
    statistic, _, layer = rest.partition("/")
    for tensor in STATISTICS:
        if head == tensor and statistic in names(tensor) and bool(layer) == (tensor in _TENSORS):
            return Meaning(tensor, statistic, layer or None)
    for metric, pattern in _METRICS.items():
        if pattern.fullmatch(tag):
            return Meaning("metrics", metric, None)
    return "its name tells neither a loss, an accuracy, a learning rate nor a gradient's norm"


def of_histogram(tag: str) -> Meaning | str:
    """What a histogram's tag means, or why it is left."""
    head, _, layer = tag.partition("/")
    for tensor in HISTOGRAM_TENSORS:
        if head == tensor and layer:
            return Meaning(tensor, None, layer)
    found = _GRADIENT.fullmatch(tag)
    parameter = (found["before"] or found["after"]) if found else tag
    if _VECTOR.search(parameter):
        return "it is of a bias or of a normalization's parameter; only weights are measured"
    weight = _WEIGHT.fullmatch(parameter)
    if found:
        return Meaning("weight_gradients", None, weight["layer"] if weight else parameter)
    if weight:
        return Meaning("weights", None, weight["layer"])
    return "its name tells neither a weight nor a gradient"
