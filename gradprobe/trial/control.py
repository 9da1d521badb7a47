"""The control arm: random changes of the fields that the remedies change.

A remedy that does no better than a change drawn at random was not worth a diagnosis. Each remedy has one control that
changes the same fields to values drawn from what those fields may be; it is neither the present spec nor any remedy.
All weights zero is not among them: a net that can't learn would flatter every remedy.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from pydantic import ValidationError

from gradprobe.diagnosis.remedies import apply, difference
from gradprobe.spec import Spec
from gradprobe.trial.design import Change, Document, leaves

Draw = Callable[[np.random.Generator, Spec], Any]
Path = tuple[str, ...]
_TRIES: Final = 100


def controls(spec: Spec, remedies: Sequence[Change], seed: str, acceptable: Callable[[Spec], bool]) -> list[Change]:
    """One random change for each remedy, the same for the same `seed`, none twice; fewer where none can be found."""
    base = spec.model_dump(mode="json")
    taken = [base, *(_validated(apply(base, remedy.patch)) for remedy in remedies)]
    found: list[Change] = []
    for remedy in remedies:
        digest = hashlib.sha256(f"{seed}/{remedy.id}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:16], "big"))
        drawn = _drawn(spec, remedy, generator, taken, acceptable)
        if drawn is not None:
            taken.append(drawn)
            words = " and ".join(".".join(path) for path in leaves(difference(base, drawn)))
            found.append(
                Change("control", f"control_{remedy.id}", difference(base, drawn), f"{words} drawn at random.")
            )
    return found


def _drawn(
    spec: Spec,
    remedy: Change,
    generator: np.random.Generator,
    taken: Sequence[Document | None],
    acceptable: Callable[[Spec], bool],
) -> Document | None:
    """A changed spec that is none of those taken: first of the remedy's own fields, then of any one field."""
    base = spec.model_dump(mode="json")
    own = [path for path in leaves(remedy.patch) if path in POOLS]
    for attempt in range(2 * _TRIES):
        # A field with two values has nothing but the remedy to offer, and another one must do.
        paths = own if own and attempt < _TRIES else [list(POOLS)[generator.integers(len(POOLS))]]
        changed = base
        for path in paths:
            changed = _put(changed, path, POOLS[path](generator, spec))
        document = _validated(changed)
        if document is not None and document not in taken and acceptable(Spec.model_validate(document)):
            return document
    return None


def _put(document: Document, path: Path, value: Any) -> Document:
    head, *rest = path
    return {**document, head: _put(document[head], tuple(rest), value) if rest else value}


def _validated(document: Document) -> Document | None:
    try:
        return Spec.model_validate(document).model_dump(mode="json")
    except ValidationError:
        return None


def _one_of(*values: Any) -> Draw:
    return lambda generator, spec: values[generator.integers(len(values))]


def _factor(generator: np.random.Generator, most: float) -> float:
    """Between 1/most and most, alike for every octave."""
    return float(np.exp(generator.uniform(-np.log(most), np.log(most))))


def _initialization(generator: np.random.Generator, spec: Spec) -> Document:
    name = _one_of(*_SCALED, "normal", "uniform", "torch_default")(generator, spec)
    if name == "normal":
        return {"name": name, "std": _rounded(0.1 * _factor(generator, 10.0))}
    if name == "uniform":
        return {"name": name, "bound": _rounded(0.1 * _factor(generator, 10.0))}
    return {"name": name} if name == "torch_default" else {"name": name, "gain": _rounded(_factor(generator, 2.0))}


def _clipping(generator: np.random.Generator, spec: Spec) -> Document:
    bound = _rounded(_factor(generator, 100.0))
    return _one_of({"kind": "norm", "max_norm": bound}, {"kind": "value", "max_value": bound})(generator, spec)  # type: ignore[no-any-return]


def _learning_rate(generator: np.random.Generator, spec: Spec) -> float:
    return _rounded(min(1e3, spec.optimizer.learning_rate * _factor(generator, 1000.0)))


def _scaled(size: Callable[[Spec], int], most: float, least: int) -> Draw:
    return lambda generator, spec: max(least, round(size(spec) * _factor(generator, most)))


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


_ACTIVATIONS: Final = (
    "sigmoid", "tanh", "relu", "leaky_relu", "prelu", "elu", "selu", "gelu", "silu", "softplus", "hardtanh", "identity",
)  # fmt: skip
_SCALED: Final = (
    "xavier_uniform", "xavier_normal", "he_uniform", "he_normal", "lecun_uniform", "lecun_normal", "orthogonal",
)  # fmt: skip

#: What a field may be, by its place in the spec.
POOLS: Final[dict[Path, Draw]] = {
    ("network", "activation"): lambda generator, spec: {"name": _one_of(*_ACTIVATIONS)(generator, spec)},
    ("network", "initialization"): _initialization,
    ("network", "normalization"): _one_of("none", "batch", "layer", "rms"),
    ("network", "residual"): _one_of(False, True),
    ("network", "depth"): _scaled(lambda spec: spec.network.depth, 3.0, 2),
    ("network", "width"): _scaled(lambda spec: spec.network.width, 4.0, 2),
    ("network", "dropout"): lambda generator, spec: round(float(generator.uniform(0.0, 0.6)), 2),
    ("optimizer", "name"): _one_of("adam", "adamw", "rmsprop", "sgd"),
    ("optimizer", "learning_rate"): _learning_rate,
    ("optimizer", "weight_decay"): lambda generator, spec: _rounded(0.001 * _factor(generator, 100.0)),
    ("optimizer", "schedule"): _one_of(
        {"name": "constant"}, {"name": "cosine"}, {"name": "step"}, {"name": "linear_warmup"}
    ),
    ("gradient_clipping",): _clipping,
    ("training", "iterations"): _scaled(lambda spec: spec.training.iterations, 2.0, 1),
}
