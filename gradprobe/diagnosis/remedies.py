"""What to change: JSON merge patches (RFC 7396) of the spec by the cause, each with what theory expects of it."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, Final

from pydantic import ValidationError

from gradprobe.diagnosis.findings import Cause, Finding, Remedy
from gradprobe.diagnosis.measurements import Measurements
from gradprobe.spec import Spec
from gradprobe.subject import AnySpec
from gradprobe.theory import predict
from gradprobe.theory.meanfield import TRAINABLE_LENGTHS
from gradprobe.theory.prediction import outlook
from gradprobe.theory.weights import usual_weight

Document = dict[str, Any]
#: (id, the object that takes the old one's place by path, why).
Change = tuple[str, dict[str, Any], str]


def remedies_of(measured: Measurements, finding: Finding) -> tuple[Remedy, ...]:
    """Changes that answer a finding's cause, the likeliest first; none that the spec refuses or that is none.

    Of those for a signal that does not arrive, the ones that theory expects to be enough, if there are any.
    """
    found = _accepted(measured, finding)
    if finding.rule not in ("vanishing", "exploding"):
        return found
    enough = tuple(remedy for remedy in found if abs(remedy.expected["log_delta_ratio"]) < TRAINABLE_LENGTHS)
    return enough or found


def _accepted(measured: Measurements, finding: Finding) -> tuple[Remedy, ...]:
    spec = nearest_spec(measured.spec)
    if spec is None:
        return ()
    document = spec.model_dump(mode="json")
    found = []
    for identifier, targets, reason in _CHANGES.get(finding.cause, _unknown)(spec, finding):
        patch = _patch(document, targets)
        if not patch:
            continue
        try:
            changed = Spec.model_validate(apply(document, patch))
        except ValidationError:
            continue
        found.append(Remedy(identifier, patch, reason, _expected(changed)))
    return tuple(found)


def nearest_spec(subject: AnySpec) -> Spec | None:
    """The experiment most like a watched loop, whose spec a remedy's patch is written against; None without one.

    Depth and activation are the loop's own, the width is its narrowest layer's: the patch says in the spec's words what
    to change, and what theory expects of it is of the like experiment.
    """
    if isinstance(subject, Spec):
        return subject
    network = subject.network
    if network.unknown is not None or network.activation.name == "identity":
        return None
    try:
        return Spec.model_validate(
            {
                "network": {
                    "depth": network.depth,
                    "width": network.width,
                    "activation": network.activation.model_dump(),
                    "normalization": network.normalization,
                    "dropout": network.dropout,
                    "initialization": "torch_default",
                },
                "optimizer": {"learning_rate": subject.optimizer.learning_rate or 0.001},
            }
        )
    except ValidationError:
        return None


def apply(document: Any, patch: Any) -> Any:
    """RFC 7396: the document with a merge patch applied."""
    if not isinstance(patch, dict):
        return patch
    result = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = apply(result.get(key), value)
    return result


def difference(before: Any, after: Any) -> Any:
    """The merge patch that makes `after` of `before`; {} where they are equal. `after` holds no null."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return after
    patch: Document = {key: None for key in before if key not in after}
    for key, value in after.items():
        if key not in before or before[key] != value:
            patch[key] = difference(before.get(key), value) if key in before else value
    return patch


def _patch(document: Document, targets: dict[str, Any]) -> Document:
    """One patch that puts an object or value at each dotted path."""
    patch: Document = {}
    for path, target in targets.items():
        *parents, last = path.split(".")
        here, place = document, patch
        for parent in parents:
            here = here[parent]
        if here.get(last) == target:
            continue
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = difference(here.get(last), target)
    return patch


def _expected(spec: Spec) -> dict[str, Any]:
    return asdict(outlook(spec))


_ReLU: Final = {"name": "relu"}
_HE: Final = {"name": "he_normal", "gain": 1.0, "bias": 0.0}


def _usual_initialization(spec: Spec) -> Document:
    """The initialization whose weights have the usual scale for the activation."""
    usual = usual_weight(spec.network.activation)
    if usual == 2.0:
        return dict(_HE)
    return {"name": "lecun_normal", "gain": round(math.sqrt(usual), 6), "bias": 0.0}


def _weight_scale(spec: Spec, finding: Finding) -> Iterator[Change]:
    initialization = _usual_initialization(spec)
    yield ("initialization", {"network.initialization": initialization},
           f"Weights of the scale that {spec.network.activation.name} needs keep ‖δ‖ from layer to layer "
           "(He et al. 2015; LeCun et al. 1998).")  # fmt: skip
    yield from _normalizations(spec)
    if finding.rule in ("exploding", "non_finite"):
        yield from _clipping(spec)
    yield from _shallower(spec)


def _activation_derivative(spec: Spec, finding: Finding) -> Iterator[Change]:
    if finding.detail in ("saturation", "dead_units", "slope"):
        yield ("initialization", {"network.initialization": _usual_initialization(spec)},
               "Zero biases and weights of the usual scale start units where they have a slope.")  # fmt: skip
    if spec.network.activation.name != "relu":
        yield ("relu", {"network.activation": _ReLU, "network.initialization": _HE},
               "ReLU passes gradients of active units undiminished, with He's weights (Glorot et al. 2011; He et al. "
               "2015).")  # fmt: skip
    leaky = {"name": "leaky_relu", "negative_slope": 0.1}
    yield ("leaky_relu", {"network.activation": leaky, "network.initialization": _HE},
           "Leaky ReLU has a slope everywhere: no unit dies (Maas et al. 2013).")  # fmt: skip
    yield from _normalizations(spec)
    yield from _residual(spec)
    yield from _shallower(spec)


def _normalization(spec: Spec, finding: Finding) -> Iterator[Change]:
    yield from _residual(spec)
    yield from _shallower(spec)
    plain = {"network.normalization": "none", "network.initialization": _usual_initialization(spec)}
    yield ("no_normalization", plain,
           "Through batch normalization gradients grow with every layer, whatever the weights (Yang 2019)")  # fmt: skip


def _skip_connection(spec: Spec, finding: Finding) -> Iterator[Change]:
    yield from _normalizations(spec)
    yield ("no_residual", {"network.residual": False, "network.initialization": _usual_initialization(spec)},
           "Without skip connections nothing adds up from layer to layer.")  # fmt: skip
    shallower = max(3, spec.network.depth // 3)
    yield ("depth", {"network.depth": shallower}, "Fewer branches add up to less.")


def _width(spec: Spec, finding: Finding) -> Iterator[Change]:
    wider = max(64, 4 * spec.network.width)
    yield ("width", {"network.width": wider},
           "The spread of δ from seed to seed is √(5 Σ 1/n): wider layers narrow it (Hanin 2018).")  # fmt: skip
    yield from _shallower(spec)


def _symmetry(spec: Spec, finding: Finding) -> Iterator[Change]:
    yield ("initialization", {"network.initialization": _usual_initialization(spec)},
           "Random weights make units differ, so that each gets a gradient of its own.")  # fmt: skip


def _too_high(spec: Spec, finding: Finding) -> Iterator[Change]:
    usual = _usual_rate(spec)
    rate = spec.optimizer.learning_rate
    lower = min(usual, rate / 10.0) if rate > usual else rate / 10.0
    yield ("learning_rate", {"optimizer.learning_rate": float(f"{lower:.3g}")},
           "Smaller steps change a layer over many batches and not over one.")  # fmt: skip
    yield ("learning_rate_tenth", {"optimizer.learning_rate": float(f"{rate / 10.0:.3g}")}, "A tenth of it.")
    yield from _clipping(spec)
    yield ("warm_up", {"optimizer.schedule": {"name": "linear_warmup", "iterations": _warm_up(spec)}},
           "The first steps, when gradients are largest, are small (Goyal et al. 2017).")  # fmt: skip
    if finding.rule == "dying_units":
        yield ("leaky_relu", {"network.activation": {"name": "leaky_relu", "negative_slope": 0.1}},
               "Leaky ReLU has a slope everywhere: no unit dies (Maas et al. 2013).")  # fmt: skip


def _too_low(spec: Spec, finding: Finding) -> Iterator[Change]:
    usual = _usual_rate(spec)
    rate = max(usual, spec.optimizer.learning_rate * 10.0)
    yield ("learning_rate", {"optimizer.learning_rate": float(f"{rate:.3g}")},
           "Larger steps can move the weights within the planned iterations.")  # fmt: skip


def _data(spec: Spec, finding: Finding) -> Iterator[Change]:
    yield (
        "dropout",
        {"network.dropout": 0.3},
        "Dropout keeps units from relying on each other (Srivastava et al. 2014).",
    )
    yield ("weight_decay", {"optimizer.name": "adamw", "optimizer.weight_decay": 0.01},
           "Decoupled weight decay keeps weights small (Loshchilov & Hutter 2019).")  # fmt: skip
    fewer = max(1, spec.training.iterations // 2)
    yield ("fewer_iterations", {"training.iterations": fewer}, "Stop about where the test loss was least.")


def _unknown(spec: Spec, finding: Finding) -> Iterator[Change]:
    yield ("initialization", {"network.initialization": _usual_initialization(spec)}, "The usual start for this net.")
    yield from _normalizations(spec)


def _normalizations(spec: Spec) -> Iterator[Change]:
    if spec.network.normalization == "none":
        yield ("batch_normalization", {"network.normalization": "batch"},
               "Normalized pre-activations make the scale of weights irrelevant (Ioffe & Szegedy 2015).")  # fmt: skip
        yield ("layer_normalization", {"network.normalization": "layer"},
               "The same over a layer's units, for every sample by itself (Ba et al. 2016).")  # fmt: skip


def _residual(spec: Spec) -> Iterator[Change]:
    if not spec.network.residual:
        yield ("residual", {"network.residual": True},
               "Skip connections carry δ past every layer undiminished (He et al. 2016).")  # fmt: skip


def _clipping(spec: Spec) -> Iterator[Change]:
    if spec.gradient_clipping is None:
        yield ("clipping", {"gradient_clipping": {"kind": "norm", "max_norm": 1.0}},
               "No single step is larger than the bound (Pascanu et al. 2013).")  # fmt: skip


def _shallower(spec: Spec) -> Iterator[Change]:
    limit = predict(spec).depth_limit
    if spec.network.depth > 3 and limit < spec.network.depth:
        yield ("depth", {"network.depth": max(2, min(spec.network.depth - 1, int(limit)))},
               "As deep as six correlation lengths allow (Schoenholz et al. 2017).")  # fmt: skip


def _usual_rate(spec: Spec) -> float:
    return {"sgd": 0.1, "rmsprop": 0.0005}.get(spec.optimizer.name, 0.001)


def _warm_up(spec: Spec) -> int:
    return max(1, spec.training.iterations // 10)


_CHANGES: Final[dict[Cause, Callable[[Spec, Finding], Iterator[Change]]]] = {
    "weight_scale": _weight_scale,
    "activation_derivative": _activation_derivative,
    "normalization": _normalization,
    "skip_connection": _skip_connection,
    "width": _width,
    "symmetry": _symmetry,
    "learning_rate_too_high": _too_high,
    "learning_rate_too_low": _too_low,
    "data": _data,
    "unknown": _unknown,
}
