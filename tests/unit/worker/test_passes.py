"""A repeated pass against an eager one: every number of every step the same to the bit, whatever the network."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from gradprobe.probe import Recording, attach
from gradprobe.spec import Spec
from tests.numerics.replay import CPU, small_dataset
from worker import batches, passes, randomness
from worker.learner import Learner
from worker.network import builders

STEPS = 6
VARIANTS: dict[str, dict[str, Any]] = {
    "classic": {},
    "batch": {"network": {"normalization": "batch", "activation": "relu"}},
    "layer, dropout": {"network": {"normalization": "layer", "activation": "gelu", "dropout": 0.3}},
    "rms, residual": {"network": {"normalization": "rms", "activation": "silu", "residual": True}},
    "prelu": {"network": {"activation": "prelu"}, "optimizer": {"name": "adamw", "weight_decay": 0.1}},
    "conv": {"network": {"kind": "conv", "depth": 4, "width": 3, "activation": "relu"}},
    "resnet": {"network": {"kind": "resnet", "depth": 4, "width": 3, "normalization": "batch", "activation": "elu"}},
    "bfloat16": {"training": {"precision": "bfloat16"}, "network": {"normalization": "batch", "activation": "tanh"}},
    "float16": {"training": {"precision": "float16"}, "network": {"activation": "selu"}},
    "clipped": {"gradient_clipping": {"kind": "norm", "max_norm": 0.01}, "optimizer": {"name": "sgd", "momentum": 0.9}},
    "by value": {"gradient_clipping": {"kind": "value", "max_value": 1e-3}, "optimizer": {"name": "rmsprop"}},
    "cosine": {"optimizer": {"name": "adam", "schedule": {"name": "cosine"}}},
    "depth 1": {"network": {"depth": 1}},
}


def spec_of(variant: dict[str, Any]) -> Spec:
    merged = {**variant, "network": {"depth": 4, "width": 6, **variant.get("network", {})}}
    merged["training"] = {"batch_size": 12, "iterations": STEPS, "device": "cpu", **variant.get("training", {})}
    return Spec.model_validate(merged)


def numbers_of(spec: Spec, monkeypatch: pytest.MonkeyPatch, most_bytes: int) -> list[list[Tensor]]:
    """Of every step loss, logits, parameters, gradients and buffers; at the end all that was measured."""
    monkeypatch.setattr(passes, "MOST_TAPE_BYTES", most_bytes)
    learner, dataset = Learner(spec, CPU), small_dataset()
    data = batches.Batches(dataset, spec.training.batch_size, spec.training.seed, CPU)
    found: list[list[Tensor]] = []
    taps = builders.taps(learner.network, spec.network)
    with (
        randomness.dropout_from(spec.training.seed, CPU),
        attach(taps, Recording(1, 1), learner.parameters, learner.network) as probe,
    ):
        for step in range(STEPS):
            learned = learner.learn(step, *data.next(), probe)
            gradients = [parameter.grad for parameter in learner.parameters if parameter.grad is not None]
            assert len(gradients) == len(learner.parameters)
            values = [learned.loss, learned.logits, *learner.parameters, *gradients, *learner.network.buffers()]
            found.append([value.detach().clone() for value in values])
        measured = probe.drain()
    statistics = [torch.from_numpy(block.values) for block in measured.statistics.values()]
    counts = [torch.from_numpy(block.counts.astype("int64")) for block in measured.counts.values()]
    return [*found, [*statistics, *counts, torch.from_numpy(measured.gradient_norm)]]


@pytest.mark.parametrize("name", VARIANTS)
def test_repeated_and_eager_training_are_the_same_to_the_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(VARIANTS[name])
    repeated, eager = (numbers_of(spec, monkeypatch, most_bytes) for most_bytes in (2**30, 0))
    for mine, wanted in zip(repeated, eager, strict=True):
        assert all(torch.equal(left, right) for left, right in zip(mine, wanted, strict=True))
    assert all(not torch.equal(earlier[1], later[1]) for earlier, later in pairwise(repeated[:STEPS]))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_network_is_repeated_and_not_run_eagerly(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("an eager pass ran")

    monkeypatch.setattr(passes.EagerPass, "__call__", fail)
    numbers_of(spec_of(VARIANTS[name]), monkeypatch, 2**30)
