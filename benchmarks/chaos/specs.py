"""What the experiments of a chaos run ask for: small, quick, and between them every kind of state a run can have."""

from typing import Any, Final

from gradprobe.spec import Spec

_NETWORK: Final[dict[str, Any]] = {"depth": 4, "width": 10, "activation": "tanh"}
_MOMENTUM: Final[dict[str, Any]] = {"name": "sgd", "learning_rate": 0.02, "momentum": 0.9}

_KINDS: Final[dict[str, dict[str, Any]]] = {
    "classic": {},
    "momentum": {"optimizer": {**_MOMENTUM, "nesterov": True, "schedule": {"name": "cosine"}}},
    "rmsprop": {"optimizer": {"name": "rmsprop", "learning_rate": 0.001}},
    "dropout": {"network": {**_NETWORK, "dropout": 0.3}},
    "batch normalization": {"network": {**_NETWORK, "activation": "relu", "normalization": "batch"}},
    "prelu, clipped": {
        "network": {**_NETWORK, "activation": "prelu"},
        "gradient_clipping": {"kind": "norm", "max_norm": 0.1},
    },
    "float16": {"training": {"precision": "float16"}, "optimizer": _MOMENTUM},
    "seldom": {"recording": {"every": 3, "histograms_every": 50, "evaluate_every": 400}},
}
_IMAGES: Final[dict[str, dict[str, Any]]] = {
    "conv": {"kind": "conv", "depth": 3, "width": 2, "activation": "relu", "dropout": 0.2},
    "resnet": {"kind": "resnet", "depth": 4, "width": 2, "activation": "relu", "normalization": "batch"},
}


def specs(iterations: int) -> dict[str, dict[str, Any]]:
    """By name, documents to be posted. Those on images, a tenth as long, do not evaluate on the way."""
    found = {}
    for name, changes in _KINDS.items():
        document: dict[str, Any] = {"dataset": "synthetic", "network": _NETWORK, **changes}
        document["training"] = {"iterations": iterations, "batch_size": 16, "seed": 7, **changes.get("training", {})}
        document.setdefault("recording", {"histograms_every": 50, "evaluate_every": iterations})
        found[name] = document
    for name, network in _IMAGES.items():
        found[name] = {
            "dataset": "synthetic",
            "network": network,
            "training": {"iterations": max(20, iterations // 10), "batch_size": 4, "seed": 7},
            "recording": {"evaluate_every": 1_000_000, "histograms_every": 10},
        }
    for document in found.values():
        Spec.model_validate(document)
    return found
