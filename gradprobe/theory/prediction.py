"""What theory says of one spec before it is trained: phase, depth limit, critical gain, a profile over the layers."""

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from gradprobe.parts.watched import WatchedInputs
from gradprobe.spec import Dataset, ScaledInitialization, WeightLayer
from gradprobe.subject import AnyNetwork, AnySpec
from gradprobe.theory import band
from gradprobe.theory.activations import Function, function_of
from gradprobe.theory.inputs import inputs_of
from gradprobe.theory.meanfield import (
    TRAINABLE_LENGTHS,
    FixedPoint,
    batch_normalized_rate,
    correlation_length,
    correlation_point,
    critical_weight,
    fixed_point,
    layer_normalized_rate,
    singular_value_spread,
)
from gradprobe.theory.propagation import Forward, Passage, propagate
from gradprobe.theory.weights import drawn, fans


@dataclass(frozen=True, slots=True)
class LayerPrediction:
    """One layer at initialization. Logarithms are natural, of squares ("e-folds"); δ is per sample.

    Attributes:
        name: `layer1` … `layerN`.
        weight_scale: σ_w² = fan_in · Var W.
        q: variance of z, before a normalization.
        chi: E‖δ‖² of this layer ÷ E‖δ‖² of the next; 1 for the output layer.
        slope_second: E[φ′²].
        saturated_fraction: expected share of saturated activations.
        delta_rms: √E[δ²] of one element.
        log_delta_ratio: ln E‖δ‖² − ln E‖δ_N‖², N the output layer.
        null_band: the deviation of that logarithm from seed to seed, √(5 Σ 1/n).
        weight_gradient_rms: √E[(∂L/∂W)²] of one weight and one sample; a batch's mean lies below.
    """

    name: str
    weight_scale: float
    q: float
    chi: float
    slope_second: float
    saturated_fraction: float
    delta_rms: float
    log_delta_ratio: float
    null_band: float
    weight_gradient_rms: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What theory says of a spec.

    Attributes:
        phase: `ordered` (gradients vanish with depth), `critical`, `chaotic` (they explode).
        chi: χ₁, the factor of E|δ|² a hidden layer at the fixed point.
        q: q*, the variance of z there; infinite where it grows without bound.
        xi: −1/ln χ₁ in layers, signed as χ's logarithm says; infinite at criticality.
        depth_limit: layers up to which it is expected to train: 6 correlation lengths (Schoenholz et al. 2017);
            infinite at criticality and with skip connections.
        critical_gain: the factor of the weights' standard deviation that would make χ₁ = 1; None where there is none,
            or where a normalization makes the scale irrelevant.
        initial_loss: expected loss of the first batch, nats.
        singular_value_spread: what a hidden layer adds to Var[s²]/E[s²]² of the Jacobian's singular values s at q*; 0
            is dynamical isometry. None behind a normalization and with skip connections.
        layers: the profile, input side first.
        notes: what theory can't say of this spec, in sentences.
    """

    phase: str
    chi: float
    q: float
    xi: float
    depth_limit: float
    critical_gain: float | None
    initial_loss: float
    singular_value_spread: float | None
    layers: tuple[LayerPrediction, ...]
    notes: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As plain JSON: what is infinite is null."""
        found = asdict(self)
        for name in ("chi", "q", "xi", "depth_limit", "initial_loss"):
            found[name] = _finite(found[name])
        found["layers"] = [{name: _finite(value) for name, value in layer.items()} for layer in found["layers"]]
        found["notes"] = list(self.notes)
        return found


@dataclass(frozen=True, slots=True)
class Outlook:
    """The heart of a prediction, in a tenth of its time: phase, χ₁, and ln E‖δ₁‖² − ln E‖δ_N‖²."""

    phase: str
    chi: float
    log_delta_ratio: float


def outlook(spec: AnySpec) -> Outlook:
    """Whether a spec's gradients reach its first layer."""
    return _outlook(spec.network, spec.dataset)


# A sweep's members have few networks between them, and each is held against several that are proposed.
@lru_cache(maxsize=1024)
def _outlook(network: AnyNetwork, dataset: Dataset | WatchedInputs) -> Outlook:
    passage = propagate(network, inputs_of(dataset))
    point = _point(network, function_of(network.activation), _hidden_to_hidden(network), passage)
    first, last = passage.squared_norm(0), passage.squared_norm(len(passage.layers) - 1)
    return Outlook(point.phase, point.chi, math.log(first / last) if first > 0 else -math.inf)


def predict(spec: AnySpec) -> Prediction:
    """What mean-field theory says of a spec's network at initialization; some milliseconds, no training."""
    return _predict(spec.network, spec.dataset)


@lru_cache(maxsize=256)
def _predict(network: AnyNetwork, dataset: Dataset | WatchedInputs) -> Prediction:
    function = function_of(network.activation)
    passage = propagate(network, inputs_of(dataset))
    hidden = _hidden_to_hidden(network)
    point = _point(network, function, hidden, passage)
    return Prediction(
        point.phase,
        point.chi,
        point.q,
        point.xi,
        _depth_limit(network, function, hidden, point),
        _critical_gain(network, function, hidden),
        passage.loss.loss,
        _spread(network, function, hidden, point),
        _profile(network, passage),
        tuple(_notes(network, hidden)),
    )


def _hidden_to_hidden(network: AnyNetwork) -> WeightLayer | None:
    """A layer from one hidden layer to the next, of which a deep network is made."""
    inner = network.layers[1:-1]
    return inner[-1] if inner else None


def _point(network: AnyNetwork, function: Function, hidden: WeightLayer | None, passage: Passage) -> FixedPoint:
    layer = hidden or network.layers[-1]
    start = passage.forward[0].z_variance
    if network.normalization != "none":
        rate = batch_normalized_rate if network.normalization == "batch" else layer_normalized_rate
        chi = rate(function) / (1.0 - network.dropout if network.normalization == "batch" else 1.0)
        return FixedPoint(1.0, _with_skip(network, chi, passage))
    weights = drawn(network.initialization, layer)
    scale = weights.weight * fans(layer)[0] / (1.0 - network.dropout)
    point = fixed_point(function, scale, weights.bias_variance, weights.bias_mean, max(start, 1e-12))
    return FixedPoint(math.inf, _with_skip(network, point.chi, passage)) if _skips(network) else point


def _skips(network: AnyNetwork) -> bool:
    return network.residual or network.kind == "resnet"


def _with_skip(network: AnyNetwork, chi: float, passage: Passage) -> float:
    """Through skip connections there is no fixed point: the growth of E[(∂L/∂h)²] a layer, over the whole depth."""
    if not _skips(network) or len(passage.forward) < 3:
        return chi
    first, last = passage.squared_norm(0), passage.squared_norm(len(passage.forward) - 2)
    return (first / last) ** (1.0 / (len(passage.forward) - 2)) if first > 0 and last > 0 else chi


def _depth_limit(network: AnyNetwork, function: Function, hidden: WeightLayer | None, point: FixedPoint) -> float:
    if _skips(network):
        return math.inf  # growth by a power of the depth, not exponential
    if network.normalization != "none" or hidden is None:
        return TRAINABLE_LENGTHS * abs(point.xi)
    weights = drawn(network.initialization, hidden)
    scale = weights.weight * fans(hidden)[0]
    if point.phase == "chaotic" and not function.homogeneous and 0 < point.q < math.inf:
        return TRAINABLE_LENGTHS * abs(correlation_point(function, scale, weights.bias_variance, point.q).xi)
    return TRAINABLE_LENGTHS * abs(correlation_length(point.chi))


def _critical_gain(network: AnyNetwork, function: Function, hidden: WeightLayer | None) -> float | None:
    """The factor g of the weights with χ₁(g² σ_w²) = 1."""
    if network.normalization != "none" or _skips(network) or hidden is None:
        return None
    weights = drawn(network.initialization, hidden)
    scale = weights.weight * fans(hidden)[0] / (1.0 - network.dropout)
    critical, _ = critical_weight(function, weights.bias_variance, weights.bias_mean)
    return math.sqrt(critical / scale) if scale > 0 and not math.isnan(critical) else None


def _spread(network: AnyNetwork, function: Function, hidden: WeightLayer | None, point: FixedPoint) -> float | None:
    if network.normalization != "none" or _skips(network) or hidden is None or not math.isfinite(point.q):
        return None
    mean = drawn(network.initialization, hidden).bias_mean
    # Rectangular weights of orthonormal rows are isometric in one direction only.
    square = hidden.weight_shape[0] == fans(hidden)[0]
    spread = singular_value_spread(function, point.q, mean, orthogonal=_orthogonal(network) and square)
    return spread if math.isfinite(spread) else None


def _orthogonal(network: AnyNetwork) -> bool:
    return isinstance(network.initialization, ScaledInitialization) and network.initialization.name == "orthogonal"


def _profile(network: AnyNetwork, passage: Passage) -> tuple[LayerPrediction, ...]:
    beta = band.betas(passage.layers)
    norms = [passage.squared_norm(index) for index in range(len(passage.layers))]
    return tuple(
        LayerPrediction(
            name,
            here.drawn.weight * fans(layer)[0],
            here.z_variance,
            norms[index] / norms[index + 1] if index + 1 < len(norms) and norms[index + 1] > 0 else 1.0,
            here.slope_second,
            here.saturated,
            math.sqrt(passage.delta_second[index]),
            math.log(norms[index] / norms[-1]) if norms[index] > 0 else -math.inf,
            band.deviation(beta[index]),
            _weight_gradient(layer, here, passage.delta_second[index]),
        )
        for index, (name, layer, here) in enumerate(
            zip(network.layer_names, passage.layers, passage.forward, strict=True)
        )
    )


def _weight_gradient(layer: WeightLayer, here: Forward, delta_second: float) -> float:
    """Of a convolution the sum over its positions, taken as independent."""
    return math.sqrt(delta_second * here.entry.second * math.prod(layer.output_shape[1:]))


def _notes(network: AnyNetwork, hidden: WeightLayer | None) -> list[str]:
    notes = []
    if network.kind in ("conv", "resnet"):
        notes.append(
            "Convolutions: neighbouring positions share weights and most images are background, so the profile is a "
            "mean over positions, good to an order of magnitude; the null band counts channels alone."
        )
    if hidden is None:
        notes.append("Without two hidden layers there is no depth to speak of: χ₁ is that of one layer.")
    if _skips(network):
        notes.append("Skip connections have no fixed point: χ₁ is the mean growth a layer over this depth.")
    if network.normalization == "batch":
        notes.append("Batch normalization: for large batches; a batch of B lowers each layer's rate by some 2/B.")
    if network.dropout:
        notes.append("Dropout removes the critical point: two inputs never become alike (Schoenholz et al. 2017).")
    if _orthogonal(network):
        notes.append("Orthogonal weights: second moments are those of Gaussian ones; the spread is smaller.")
    return notes


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
