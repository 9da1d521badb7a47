"""Loops as people write them: mixed precision, accumulation, clipping, shared and frozen weights, other modules."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as processes
from torch import nn
from torch.nn import functional

import gradprobe
from tests.unit.gradprobe.watching.loops import batches, chain, train, watched


def test_accumulated_gradients_are_those_of_the_whole_step() -> None:
    model, whole = chain(), chain()
    data = batches(4)
    with watched(whole, histograms_every=1) as (at_once, optimizer):
        train(whole, optimizer, data)
    with watched(model, histograms_every=1) as (watching, optimizer):
        for images, labels in data:
            optimizer.zero_grad()
            for part in (slice(0, 8), slice(8, 16)):
                (functional.cross_entropy(model(images[part]), labels[part]) / 2).backward()
            optimizer.step()
    assert watching.steps == 4
    expected, found = at_once.gradients(), watching.gradients()
    np.testing.assert_allclose(found.matrix("norm"), expected.matrix("norm"), rtol=1e-4)
    counts = watching._history.counts()["weight_gradients"].dense()
    assert counts.sum(axis=(1, 2)).tolist() == [sum(layer.size for layer in found.layers)] * 4


def test_clipping_is_seen_before_and_after() -> None:
    model = chain(activation=nn.ReLU)
    with watched(model) as (watching, optimizer):
        for images, labels in batches():
            optimizer.zero_grad()
            functional.cross_entropy(model(images), labels).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
            optimizer.step()
    assert (watching.metrics()["gradient_norm"] > 1e-2).all()
    clipped = watching.gradients("clipped_weights").matrix("norm")
    assert (np.sqrt((clipped**2).sum(axis=0)) <= 1.001e-3).all()
    assert (watching.gradients().matrix("norm") > clipped).all()


def test_mixed_precision_is_unscaled_and_skipped_steps_are_told() -> None:
    model, plain = chain(), chain()
    data = batches(4)
    with watched(plain) as (unscaled, optimizer):
        train(plain, optimizer, data)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradprobe.watch(model, optimizer, scaler=scaler) as watching:
        for number, (images, labels) in enumerate([*data, *data]):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            scaler.scale(loss * (float("inf") if number == 5 else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
    first = slice(0, 4)
    np.testing.assert_allclose(
        watching.gradients().matrix("norm")[:, first], unscaled.gradients().matrix("norm"), rtol=0.1
    )
    np.testing.assert_allclose(
        watching.gradients("outputs").matrix("norm")[:, first], unscaled.gradients("outputs").matrix("norm"), rtol=0.1
    )
    assert watching.spec.training.precision == "bfloat16"
    assert watching.steps == 8
    assert (watching.gradients().matrix("nonfinite_count")[:, 5] > 0).all()
    assert watching.weights().matrix("update_ratio")[:, 5].tolist() == [0.0] * 4


def test_shared_and_frozen_weights_are_left_out_with_a_reason() -> None:
    model = chain(depth=5)
    model[4].weight = model[2].weight
    model[6].weight.requires_grad_(False)
    with watched(model) as (watching, optimizer):
        train(model, optimizer, batches())
    assert watching.spec.network.layer_names == ["0", "8"]
    told = "; ".join(watching.left_out)
    assert "2: its weight is used 2 times" in told
    assert "6: it is frozen" in told


def test_a_layer_that_joins_only_sometimes() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.extra, self.last = nn.Linear(12, 8), nn.Linear(8, 8), nn.Linear(8, 5)
            self.calls = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            h = torch.relu(self.inner(images))
            return self.last(torch.relu(self.extra(h)) if self.calls % 3 else h)

    model = Sometimes()
    with watched(model) as (watching, optimizer):
        train(model, optimizer, batches(6))
    assert watching.steps == 6
    assert watching.gradients().steps.tolist() == [0, 1, 3, 4]
    assert watching.left_out == ("2 steps: a layer that is measured took no part",)


def test_a_compiled_module_is_refused_or_measured() -> None:
    seen = torch.compile(chain(), backend="eager")
    optimizer = torch.optim.SGD(seen.parameters(), lr=0.1)
    with gradprobe.watch(seen, optimizer) as watching:
        train(seen, optimizer, batches(3))
    assert len(watching.gradients().layers) == 4
    hidden = torch.compile(chain(), backend="aot_eager")
    optimizer = torch.optim.SGD(hidden.parameters(), lr=0.1)
    with gradprobe.watch(hidden, optimizer) as watching, pytest.warns(RuntimeWarning, match="compiled"):
        train(hidden, optimizer, batches(3))
    assert watching.steps == 0


def test_a_convolutional_network() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, stride=2, groups=2), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip
    with watched(model, histograms_every=2) as (watching, optimizer):
        train(model, optimizer, batches(shape=(3, 12, 12)))
    assert watching.spec.network.layer_names == ["0", "4", "8"]
    assert watching.spec.network.unknown == "0 is a convolution"
    assert np.isfinite(watching.gradients("outputs").matrix("norm")).all()
    assert np.isfinite(watching.activations().matrix("dead_fraction")).all()
    assert "theory does not know this network, 0 is a convolution" in str(watching.diagnosis())


def test_a_transformer() -> None:
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.encoder, self.head = nn.Embedding(20, 16), encoder, nn.Linear(16, 5)

        def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.head(self.encoder(self.embedding(tokens)).mean(1))}

    model = Classifier()
    with watched(model) as (watching, optimizer):
        for length in (7, 9, 7):  # sequences of other lengths
            loss = functional.cross_entropy(
                model(torch.randint(0, 20, (4, length)))["logits"], torch.tensor([0, 1, 2, 3])
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    names = watching.spec.network.layer_names
    assert names[:4] == [
        "encoder.layers.0.self_attn.in_proj_weight",
        "encoder.layers.0.self_attn.out_proj",
        "encoder.layers.0.linear1",
        "encoder.layers.0.linear2",
    ]
    assert names[-1] == "head"
    assert np.isfinite(watching.gradients("outputs").matrix("norm")).all()
    assert any("embedding" in text for text in watching.left_out)
    assert watching.diagnosis().failed_rules == ()


def _rank(rank: int, address: str, directory: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1"}
    torch.distributed.init_process_group("gloo", init_method=f"file://{address}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    model = nn.parallel.DistributedDataParallel(chain())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        gradprobe.watch(model, optimizer) as one,
        gradprobe.watch(model, optimizer, every_rank=True) as each,
    ):
        train(model, optimizer, [(images[rank::2], labels[rank::2]) for images, labels in batches()])
    Path(directory, str(rank)).write_text(f"{one.active or one.steps}")
    np.save(Path(directory, f"{rank}.npy"), [each.gradients().matrix("norm"), each.gradients("outputs").matrix("norm")])
    torch.distributed.destroy_process_group()


@pytest.mark.thorough
def test_distributed_training_is_watched_on_one_rank_or_on_each(tmp_path: Path) -> None:
    processes.spawn(_rank, (str(tmp_path / "meeting"), str(tmp_path)), nprocs=2)
    assert (tmp_path / "0").read_text() == "12"
    assert (tmp_path / "1").read_text() == "0"
    (weights, outputs), (other_weights, other_outputs) = (np.load(tmp_path / f"{rank}.npy") for rank in (0, 1))
    np.testing.assert_allclose(weights, other_weights, rtol=1e-6)  # averaged over the ranks
    assert not np.allclose(outputs, other_outputs)  # of each rank's own samples
    whole = chain()
    with watched(whole) as (watching, optimizer):
        train(whole, optimizer, batches())
    np.testing.assert_allclose(weights, watching.gradients().matrix("norm"), rtol=1e-4)


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (nn.GELU(approximate="tanh"), "gelu"),
        (nn.ELU(alpha=0.4), "elu"),
        (nn.SELU(), "selu"),
        (nn.Softplus(beta=3.0), "softplus"),
        (nn.Hardtanh(), "hardtanh"),
        (nn.ReLU6(), "relu"),
        (nn.LeakyReLU(0.3), "leaky_relu"),
        (nn.SiLU(), "silu"),
        (nn.LeakyReLU(0.3, inplace=True), "leaky_relu"),
        (nn.ELU(alpha=0.4, inplace=True), "elu"),
        (nn.SELU(inplace=True), "selu"),
        (nn.ReLU6(inplace=True), "relu"),
    ],
)
def test_an_activation_is_measured_with_its_own_arguments(activation: nn.Module, name: str) -> None:
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(12, 8), activation, nn.LayerNorm(8), nn.Linear(8, 5)), batches(1)
    with torch.no_grad():
        model[0].weight.mul_(30)  # far enough for a ceiling of 6
        expected = activation(functional.linear(data[0][0], model[0].weight, model[0].bias))
    with watched(model) as (watching, optimizer):
        train(model, optimizer, data)
    assert watching.spec.network.activation_names[0] == name
    found = watching.activations()["0"]
    assert found["mean"][0] == pytest.approx(float(expected.double().mean()), rel=1e-6)
    assert found["std"][0] == pytest.approx(float(expected.double().std(correction=0)), rel=1e-6)
