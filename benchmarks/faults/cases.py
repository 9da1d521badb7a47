"""Which experiments, and what is known of each by its making: a healthy base, or that base with one fault put in."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from gradprobe.spec import Spec

ITERATIONS: Final = 500
#: Seeds of the runs that rules were tuned on, and of those that are reported.
TUNING, REPORTED = 0, 1000

Patch = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One experiment with its label.

    Attributes:
        name: of base and fault.
        spec: what is trained.
        cause: what is wrong with it, in `diagnosis`' words; None where nothing is.
        base: the same experiment without the fault.
        fault: the fault's name.
    """

    name: str
    spec: Spec
    cause: str | None
    base: Spec
    fault: str | None = None


_RELU: Final = {"activation": "relu", "initialization": "he_normal"}
_TANH: Final = {"activation": "tanh", "initialization": "xavier_normal"}
_LEAKY: Final = {
    "activation": {"name": "leaky_relu", "negative_slope": 0.1},
    "initialization": {"name": "he_uniform"},
}
_NETWORKS: Final[dict[str, Patch]] = {
    "relu-classic": {"depth": 6, "width": 10, "activation": "relu"},
    "leaky-classic": {"depth": 6, "width": 10, "activation": {"name": "leaky_relu", "negative_slope": 0.2}},
    "relu-3x32": {"depth": 3, "width": 32, **_RELU},
    "relu-5x64": {"depth": 5, "width": 64, **_RELU},
    "relu-8x64": {"depth": 8, "width": 64, **_RELU},
    "relu-12x64": {"depth": 12, "width": 64, **_RELU},
    "leaky-8x48": {"depth": 8, "width": 48, **_LEAKY},
    "tanh-3x32": {"depth": 3, "width": 32, **_TANH},
    "tanh-5x64": {"depth": 5, "width": 64, **_TANH},
    "tanh-8x64": {"depth": 8, "width": 64, **_TANH},
    "tanh-12x64": {"depth": 12, "width": 64, **_TANH},
    "sigmoid-2x64": {"depth": 2, "width": 64, "activation": "sigmoid"},
    "elu-6x48": {"depth": 6, "width": 48, "activation": "elu", "initialization": "he_normal"},
    "selu-8x64": {"depth": 8, "width": 64, "activation": "selu", "initialization": "lecun_normal"},
    "gelu-6x64": {"depth": 6, "width": 64, "activation": "gelu", "initialization": "he_normal"},
    "silu-5x64": {"depth": 5, "width": 64, "activation": "silu", "initialization": "he_normal"},
    "hardtanh-6x48": {"depth": 6, "width": 48, "activation": "hardtanh", "initialization": "lecun_normal"},
    "relu-batch-6x32": {"depth": 6, "width": 32, **_RELU, "normalization": "batch"},
    "relu-batch-12x64": {"depth": 12, "width": 64, **_RELU, "normalization": "batch"},
    "sigmoid-batch-6x32": {"depth": 6, "width": 32, "activation": "sigmoid", "normalization": "batch"},
    "tanh-batch-8x48": {"depth": 8, "width": 48, **_TANH, "normalization": "batch"},
    "relu-layer-8x64": {"depth": 8, "width": 64, **_RELU, "normalization": "layer"},
    "tanh-rms-8x48": {"depth": 8, "width": 48, **_TANH, "normalization": "rms"},
    "relu-residual-6x32": {"depth": 6, "width": 32, "activation": "relu", "residual": True},
    "relu-residual-layer-10x48": {"depth": 10, "width": 48, **_RELU, "residual": True, "normalization": "layer"},
    "orthogonal-tanh-10x64": {"depth": 10, "width": 64, "activation": "tanh", "initialization": "orthogonal"},
}
_OPTIMIZERS: Final[dict[str, Patch]] = {
    "adam": {"name": "adam", "learning_rate": 0.001},
    "momentum": {"name": "sgd", "learning_rate": 0.02, "momentum": 0.9},
    "sgd": {"name": "sgd", "learning_rate": 0.1},
    "rmsprop": {"name": "rmsprop", "learning_rate": 0.0005},
}

#: Fault, the bases and the optimizers that it is put into, what it changes, and what is then at fault.
_Fault = tuple[str, tuple[str, ...], tuple[str, ...], Patch, str]
_ADAM_SGD: Final = ("adam", "momentum")
_FAULTS: Final[tuple[_Fault, ...]] = (
    ("sigmoid", ("relu-classic", "relu-5x64", "relu-8x64", "tanh-8x64", "tanh-12x64"), _ADAM_SGD,
     {"network": {"activation": "sigmoid", "initialization": "xavier_uniform"}}, "activation_derivative"),
    ("sigmoid-lecun", ("relu-8x64", "relu-12x64"), _ADAM_SGD,
     {"network": {"activation": "sigmoid", "initialization": "lecun_normal"}}, "activation_derivative"),
    ("torch-default", ("relu-8x64", "relu-12x64", "leaky-8x48", "tanh-12x64"), _ADAM_SGD,
     {"network": {"initialization": "torch_default"}}, "weight_scale"),
    ("std-0.01", ("relu-5x64", "relu-8x64", "tanh-8x64", "leaky-8x48"), _ADAM_SGD,
     {"network": {"initialization": {"name": "normal", "std": 0.01}}}, "weight_scale"),
    ("xavier-20", ("relu-12x64", "leaky-8x48"), _ADAM_SGD,
     {"network": {"depth": 20, "initialization": "xavier_normal"}}, "weight_scale"),
    ("gain-0.3", ("relu-8x64", "tanh-8x64", "elu-6x48"), _ADAM_SGD,
     {"network": {"initialization": {"name": "he_normal", "gain": 0.3}}}, "weight_scale"),
    ("bias-3", ("tanh-5x64", "tanh-8x64", "hardtanh-6x48"), _ADAM_SGD,
     {"network": {"initialization": {"name": "xavier_normal", "bias": 3.0}}}, "activation_derivative"),
    ("bias-minus-1", ("relu-5x64", "relu-8x64", "relu-12x64"), _ADAM_SGD,
     {"network": {"initialization": {"name": "he_normal", "bias": -1.0}}}, "activation_derivative"),
    ("gain-3", ("relu-8x64", "relu-12x64", "leaky-8x48"), _ADAM_SGD,
     {"network": {"initialization": {"name": "he_normal", "gain": 3.0}}}, "weight_scale"),
    ("std-1", ("tanh-5x64", "tanh-8x64", "relu-5x64", "selu-8x64"), _ADAM_SGD,
     {"network": {"initialization": {"name": "normal", "std": 1.0}}}, "weight_scale"),
    ("overflow", ("relu-8x64", "leaky-8x48"), _ADAM_SGD,
     {"network": {"initialization": {"name": "normal", "std": 1e6}}}, "weight_scale"),
    ("zeros", ("relu-5x64", "tanh-5x64", "tanh-8x64", "gelu-6x64"), _ADAM_SGD,
     {"network": {"initialization": "zeros"}}, "symmetry"),
    ("rate-1e-7", ("relu-5x64", "tanh-5x64", "relu-batch-6x32", "relu-classic"), ("adam", "rmsprop"),
     {"optimizer": {"learning_rate": 1e-7}}, "learning_rate_too_low"),
    ("rate-1e-6", ("relu-5x64", "tanh-8x64", "relu-layer-8x64"), ("sgd", "momentum"),
     {"optimizer": {"learning_rate": 1e-6}}, "learning_rate_too_low"),
    ("rate-0.5", ("relu-5x64", "tanh-5x64", "leaky-8x48", "relu-8x64", "relu-classic"), ("adam",),
     {"optimizer": {"learning_rate": 0.5}}, "learning_rate_too_high"),
    ("rate-0.1", ("relu-8x64", "tanh-8x64", "gelu-6x64", "elu-6x48"), ("adam", "rmsprop"),
     {"optimizer": {"learning_rate": 0.1}}, "learning_rate_too_high"),
    ("rate-5", ("relu-5x64", "relu-8x64", "tanh-5x64", "leaky-8x48"), ("sgd", "momentum"),
     {"optimizer": {"learning_rate": 5.0}}, "learning_rate_too_high"),
    ("rate-1000", ("relu-5x64", "leaky-8x48", "relu-residual-6x32"), ("sgd", "momentum"),
     {"optimizer": {"learning_rate": 1000.0}}, "learning_rate_too_high"),
)  # fmt: skip


#: Added later, with the seeds that follow, so that what was trained before stays.
_MORE_NETWORKS: Final[dict[str, Patch]] = {
    "sigmoid-layer-6x64": {"depth": 6, "width": 64, "activation": "sigmoid", "normalization": "layer"},
    "sigmoid-rms-5x48": {"depth": 5, "width": 48, "activation": "sigmoid", "normalization": "rms"},
}
_MORE_FAULTS: Final[tuple[_Fault, ...]] = (
    ("narrow-3x15", ("relu-5x64", "relu-8x64", "relu-12x64"), _ADAM_SGD,
     {"network": {"depth": 15, "width": 3}}, "width"),
    ("batch-60", ("relu-batch-6x32", "relu-batch-12x64"), ("adam", "rmsprop"),
     {"network": {"depth": 60, "width": 32}}, "normalization"),
    ("residual-20", ("relu-residual-6x32",), ("adam", "rmsprop", "sgd", "momentum"),
     {"network": {"depth": 20, "width": 48, "initialization": "he_normal"}}, "skip_connection"),
)  # fmt: skip


def cases(first_seed: int) -> Iterator[Case]:
    """The whole suite with seeds from `first_seed` on; each experiment has another seed."""
    seed = first_seed
    for networks, faults in ((_NETWORKS, _FAULTS), (_MORE_NETWORKS, _MORE_FAULTS)):
        for case in _cases(networks, faults, seed):
            yield case
            seed += 1


def _cases(networks: dict[str, Patch], faults: tuple[_Fault, ...], seed: int) -> Iterator[Case]:
    for network in networks:
        for optimizer in _OPTIMIZERS:
            spec = _spec(network, optimizer, seed)
            yield Case(f"{network}/{optimizer}", spec, None, spec)
            seed += 1
    for fault, bases, optimizers, patch, cause in faults:
        for network in bases:
            for optimizer in optimizers:
                base = _spec(network, optimizer, seed)
                spec = Spec.model_validate(merged(base.model_dump(mode="json"), patch))
                yield Case(f"{network}/{optimizer}/{fault}", spec, cause, base, fault)
                seed += 1


def _spec(network: str, optimizer: str, seed: int) -> Spec:
    document = {
        "network": {**_NETWORKS, **_MORE_NETWORKS}[network],
        "optimizer": _OPTIMIZERS[optimizer],
        "training": {"iterations": ITERATIONS, "batch_size": 64, "seed": seed, "device": "cpu"},
        "recording": {"histograms_every": 1_000_000, "evaluate_every": ITERATIONS // 2},
    }
    return Spec.model_validate(document)


def merged(document: Any, patch: Any) -> Any:
    """RFC 7396: the document with a merge patch applied; a name that is replaced takes its parameters along."""
    if not isinstance(patch, dict):
        return patch
    if "name" in patch and isinstance(document, dict) and patch["name"] != document.get("name"):
        return patch
    result = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result
