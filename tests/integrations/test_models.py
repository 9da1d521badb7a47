"""Models that nobody here wrote: watched they train to the same bits, and what is told of them is true."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradprobe
from gradprobe.watching import Watching

pytestmark = [pytest.mark.integrations, pytest.mark.filterwarnings("ignore")]  # theirs, and many

STEPS, CLASSES, BATCH = 4, 5, 6
Make = Callable[[], nn.Module]
Loss = Callable[[nn.Module, int], Tensor]


HAND: dict[str, Callable[[Tensor], float]] = {
    "norm": lambda gradient: float(gradient.norm()),
    "mean_abs": lambda gradient: float(gradient.abs().mean()),
    "max_abs": lambda gradient: float(gradient.abs().max()),
}


def images(size: int) -> Loss:
    def loss(model: nn.Module, step: int) -> Tensor:
        numbers = torch.Generator().manual_seed(step)
        given = torch.randn(BATCH, 3, size, size, generator=numbers)
        labels = torch.randint(0, CLASSES, (BATCH,), generator=numbers)
        return functional.cross_entropy(model(given), labels)

    return loss


def tokens(**more: bool) -> Loss:
    def loss(model: nn.Module, step: int) -> Tensor:
        given = torch.randint(0, 50, (BATCH, 12), generator=torch.Generator().manual_seed(step))
        found: Tensor = model(input_ids=given, labels=given, **more).loss
        return found

    return loss


def vision(name: str, **options: Any) -> Make:
    def make() -> nn.Module:
        import torchvision  # noqa: PLC0415 - here alone

        model: nn.Module = getattr(torchvision.models, name)(num_classes=CLASSES, **options)
        return model

    return make


def timm(name: str, **options: Any) -> Make:
    def make() -> nn.Module:
        import timm  # noqa: PLC0415 - here alone

        model: nn.Module = timm.create_model(name, num_classes=CLASSES, **options)
        return model

    return make


def language(architecture: str, task: str, **options: Any) -> Make:
    def make() -> nn.Module:
        import transformers  # noqa: PLC0415 - here alone

        config = getattr(transformers, f"{architecture}Config")(vocab_size=50, **options)
        model: nn.Module = getattr(transformers, f"{architecture}{task}")(config)
        return model

    return make


SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
MODELS: dict[str, tuple[Make, Loss, str]] = {
    "torchvision resnet18": (vision("resnet18"), images(64), "layer1.0.conv1"),
    "torchvision mobilenet_v3_small": (vision("mobilenet_v3_small"), images(64), "features.0.0"),
    "torchvision vgg": (vision("vgg11", dropout=0.5), images(32), "features.0"),
    "torchvision squeezenet": (vision("squeezenet1_1"), images(64), "features.0"),
    "torchvision densenet": (
        vision("DenseNet", growth_rate=8, block_config=(2, 2, 2), num_init_features=16), images(64), "features.conv0",
    ),
    "torchvision vit": (
        vision("VisionTransformer", image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64),
        images(32), "conv_proj",
    ),
    "timm resnet10t": (timm("resnet10t"), images(64), "conv1.0"),
    "timm convnext_atto": (timm("convnext_atto"), images(64), "stem.0"),
    "timm efficientnet_lite0": (timm("efficientnet_lite0"), images(64), "conv_stem"),
    "timm mixer": (timm("mixer_s32_224", img_size=64), images(64), "stem.proj"),
    "transformers gpt2": (
        language("GPT2", "LMHeadModel", n_embd=16, n_layer=2, n_head=2, n_positions=16),
        tokens(), "transformer.h.0.attn.c_attn",
    ),
    "transformers llama": (language("Llama", "ForCausalLM", **SMALL), tokens(), "model.layers.0.self_attn.q_proj"),
    "transformers t5": (
        language("T5", "ForConditionalGeneration", d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
                 decoder_start_token_id=0),
        tokens(), "encoder.block.0.layer.0.SelfAttention.q",
    ),
}  # fmt: skip


def train(make: Make, loss_of: Loss, *, watch: bool) -> tuple[nn.Module, Watching | None, dict[str, list[Tensor]]]:
    """A plain loop; the model, what watched it, and every gradient at every step."""
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    watching = gradprobe.watch(model, optimizer) if watch else None
    gradients: dict[str, list[Tensor]] = {}
    for step in range(STEPS):
        loss = loss_of(model, step)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if watching is None:
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    gradients.setdefault(name, []).append(parameter.grad.double().clone())
        optimizer.step()
    if watching is not None:
        watching.end()
    return model, watching, gradients


@pytest.mark.parametrize("name", MODELS)
def test_it_trains_to_the_same_bits_and_its_statistics_are_those_of_its_gradients(name: str) -> None:
    make, loss_of, known = MODELS[name]
    watched, watching, _ = train(make, loss_of, watch=True)
    plain, _, gradients = train(make, loss_of, watch=False)
    for key, value in plain.state_dict().items():
        assert torch.equal(watched.state_dict()[key], value), key

    assert watching is not None
    assert watching.steps == STEPS
    measured = watching.gradients()
    assert known in measured.names
    weights = {key for key, values in gradients.items() if values[0].ndim >= 2}
    assert len(measured.names) >= 0.6 * len(weights), (watching.left_out, sorted(weights))
    for layer in measured.names:
        key = layer if layer in gradients else f"{layer}.weight"
        for statistic, by_hand in HAND.items():
            expected = [by_hand(gradient) for gradient in gradients[key]]
            np.testing.assert_allclose(measured[layer][statistic], expected, rtol=2e-4, atol=1e-12, err_msg=layer)
    deltas = watching.gradients(of="outputs")
    assert np.isfinite(deltas.matrix("norm")).all()
    assert (deltas.matrix("norm") > 0).any(axis=1).all()

    said = str(watching.diagnosis())
    assert watching.diagnosis().failed_rules == ()
    assert said.splitlines()[0]
    print(f"{name}: {len(measured.names)} of {len(weights)} layers\n{said}")  # noqa: T201 - to be read with -s
