"""Which tags are known, as people and tools write them."""

import pytest

from gradprobe.importing.names import Meaning, of_histogram, of_scalar
from gradprobe.statistics import Tensor


@pytest.mark.parametrize(
    ("tag", "tensor", "layer"),
    [
        ("fc1.weight.grad", "weight_gradients", "fc1"),
        ("fc1.weight_grad", "weight_gradients", "fc1"),
        ("fc1/weight/grad", "weight_gradients", "fc1"),
        ("gradients/fc1.weight", "weight_gradients", "fc1"),
        ("grad/features.0.weight", "weight_gradients", "features.0"),
        ("Gradients/model.layers.3.mlp.weight", "weight_gradients", "model.layers.3.mlp"),
        ("fc1.grad", "weight_gradients", "fc1"),
        ("fc1.weight", "weights", "fc1"),
        ("dense_2/kernel_0", "weights", "dense_2"),
        ("weight_gradients/layer1", "weight_gradients", "layer1"),
        ("output_gradients/layer1", "output_gradients", "layer1"),
    ],
)
def test_a_histogram_of_a_weight_or_its_gradient_is_known_by_its_name(tag: str, tensor: Tensor, layer: str) -> None:
    assert of_histogram(tag) == Meaning(tensor, None, layer)


@pytest.mark.parametrize("tag", ["fc1.bias.grad", "gradients/fc1.bias", "fc1.bias", "activations", "images", "x/y"])
def test_any_other_histogram_is_left_with_a_reason(tag: str) -> None:
    assert isinstance(of_histogram(tag), str)


@pytest.mark.parametrize(
    ("tag", "meaning"),
    [
        ("loss", Meaning("metrics", "loss", None)),
        ("train/loss", Meaning("metrics", "loss", None)),
        ("Loss/train", Meaning("metrics", "loss", None)),
        ("train_loss_step", Meaning("metrics", "loss", None)),
        ("train_acc", Meaning("metrics", "accuracy", None)),
        ("lr-Adam", Meaning("metrics", "learning_rate", None)),
        ("train/grad_norm", Meaning("metrics", "gradient_norm", None)),
        ("metrics/loss", Meaning("metrics", "loss", None)),
        ("weight_gradients/mean_abs/layer1", Meaning("weight_gradients", "mean_abs", "layer1")),
        ("weights/update_ratio/blocks/0", Meaning("weights", "update_ratio", "blocks/0")),
    ],
)
def test_a_scalar_is_known_by_its_name(tag: str, meaning: Meaning) -> None:
    assert of_scalar(tag) == meaning


@pytest.mark.parametrize("tag", ["val/loss", "test_acc", "epoch", "weights/mean_abs", "metrics/loss/layer1", "loss2"])
def test_any_other_scalar_is_left_with_a_reason(tag: str) -> None:
    assert isinstance(of_scalar(tag), str)
