"""Specs shown in the API's documentation."""

from typing import Any, Final

SPECS: Final[dict[str, Any]] = {
    "classic": {
        "summary": "The classic vanishing gradient: every default",
        "value": {},
    },
    "relu": {
        "summary": "The same network with ReLU and He initialization",
        "description": "A bare string stands for the object of that name with its defaults.",
        "value": {
            "name": "relu with He",
            "tags": {"course": "dl-101"},
            "network": {"activation": "relu", "initialization": "he_normal"},
        },
    },
    "deep": {
        "summary": "Thirty layers of tanh, trained by SGD with momentum",
        "value": {
            "network": {"depth": 30, "width": 64, "activation": "tanh", "initialization": "orthogonal"},
            "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9},
            "training": {"iterations": 1000, "seed": 7},
        },
    },
}

SWEEPS: Final[dict[str, Any]] = {
    "activations": {
        "summary": "Two activations over three seeds: six experiments",
        "value": {
            "name": "activations",
            "base": {"network": {"initialization": "he_normal"}},
            "axes": {"/network/activation": ["relu", "tanh"], "/training/seed": [0, 1, 2]},
        },
    },
}
