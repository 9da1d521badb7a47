"""Healthy experiments drawn at random: usual initializations and learning rates, anything else as it comes."""

import random
from collections.abc import Iterator
from typing import Any, Final

from benchmarks.faults.cases import ITERATIONS, Case
from gradprobe.spec import Spec

_USUAL: Final[dict[str, tuple[str, ...]]] = {
    "relu": ("he_normal", "he_uniform"),
    "leaky_relu": ("he_normal", "he_uniform"),
    "prelu": ("he_normal",),
    "gelu": ("he_normal",),
    "silu": ("he_normal", "he_uniform"),
    "elu": ("lecun_normal", "he_normal"),
    "selu": ("lecun_normal",),
    "tanh": ("xavier_normal", "xavier_uniform", "lecun_normal", "orthogonal"),
    "hardtanh": ("xavier_normal", "lecun_uniform"),
    "sigmoid": ("xavier_normal", "xavier_uniform"),
}
_RATES: Final = {"adam": (5e-4, 3e-3), "adamw": (5e-4, 3e-3), "rmsprop": (2e-4, 1e-3), "sgd": (0.03, 0.15)}


def drawn(count: int, first_seed: int) -> Iterator[Case]:
    """`count` experiments, the same for the same seed."""
    source = random.Random(first_seed)  # noqa: S311 - nothing secret
    for number in range(count):
        spec = Spec.model_validate(_document(source, first_seed + number))
        yield Case(f"drawn-{number}", spec, None, spec)


def _document(source: random.Random, seed: int) -> dict[str, Any]:
    activation = source.choice(list(_USUAL))
    normalization = source.choice(("none", "none", "batch", "layer", "rms"))
    # Sigmoid without batch normalization is sound only while it is shallow.
    deepest = 2 if activation == "sigmoid" and normalization != "batch" else 10
    depth = source.randint(2, deepest)
    residual = depth > 2 and (normalization != "none" or depth < 6) and source.random() < 0.2
    name = source.choice(list(_RATES))
    low, high = _RATES[name]
    return {
        "dataset": {"normalization": source.choice(("unit", "unit", "standard"))},
        "network": {
            "depth": depth,
            "width": source.choice((16, 24, 32, 48, 64, 96)),
            "activation": activation,
            "initialization": source.choice(_USUAL[activation]),
            "normalization": normalization,
            "residual": residual,
        },
        "optimizer": {"name": name, "learning_rate": low * (high / low) ** source.random()},
        "training": {
            "iterations": ITERATIONS,
            "batch_size": source.choice((32, 64, 128)),
            "seed": seed,
            "device": "cpu",
        },
        "recording": {"histograms_every": 1_000_000, "evaluate_every": ITERATIONS // 2},
    }
