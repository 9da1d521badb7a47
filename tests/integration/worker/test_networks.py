"""Every kind of network from a stored spec to stored statistics, with everything that a spec can ask for."""

from typing import Any

import numpy as np
import pytest

from gradprobe.settings import Settings
from gradprobe.state import Status
from gradprobe.statistics import Tensor, names
from gradprobe.store import series
from tests.integration.store.transactions import Store
from worker.execute import execute

MLP = {"kind": "mlp", "depth": 5, "normalization": "batch", "residual": True, "dropout": 0.1, "width": 8}
CONV = {"kind": "conv", "depth": 5, "normalization": "layer", "residual": True, "dropout": 0.1}
RESNET = {"kind": "resnet", "depth": 6, "normalization": "rms", "dropout": 0.1, "activation": "prelu"}


# What is stored has the same form whatever was trained, so one kind of network shows that both databases take it.
@pytest.mark.parametrize(
    ("database_kind", "network", "precision"),
    [
        ("sqlite", MLP, "float32"),
        ("postgresql", MLP, "float32"),
        ("sqlite", CONV, "bfloat16"),
        pytest.param("sqlite", RESNET, "float16", marks=pytest.mark.thorough),
    ],
    ids=["mlp-sqlite", "mlp-postgresql", "conv", "resnet"],
    indirect=["database_kind"],
)
def test_it_is_trained_and_stored(
    store: Store, worker_settings: Settings, network: dict[str, Any], precision: str
) -> None:
    document = {
        "dataset": "synthetic",
        "network": {"width": 1, **network},
        "optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True, "learning_rate": 0.01, "schedule": "cosine"},
        "gradient_clipping": {"kind": "norm", "max_norm": 0.01},
        "training": {"iterations": 5, "batch_size": 8, "device": "cpu", "precision": precision},
        "recording": {"evaluate_every": 100},
    }
    identifier = store.create(document).id
    assert execute(identifier, worker_settings, store.database) == Status.SUCCEEDED
    record = store.get(identifier)
    tensors: tuple[Tensor, ...] = ("weight_gradients", "clipped_weight_gradients", "output_gradients", "activations")
    for tensor in tensors:
        block = store.read(series.read_statistics, identifier, tensor)
        assert block is not None
        assert block.values.shape == (len(names(tensor)), len(record.layers), 5)
    clipped = store.read(series.read_statistics, identifier, "clipped_weight_gradients")
    norms = clipped.values[names("clipped_weight_gradients").index("norm")]
    assert 0 < np.nanmax(np.linalg.norm(norms, axis=0)) <= 0.01 * (1 + 1e-5)
    counts = store.read(series.read_counts, identifier, "output_gradients").dense()[0].sum(axis=1)
    assert counts.tolist() == [np.prod(layer.output_shape) for layer in record.layers]
