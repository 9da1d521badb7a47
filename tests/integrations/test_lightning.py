"""The callback in Lightning's own `Trainer`: a network that starves is found, and trains to the same bits."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

pytestmark = [pytest.mark.integrations, pytest.mark.filterwarnings("ignore")]  # theirs, and many

STEPS = 120


def module() -> Any:
    from lightning.pytorch import LightningModule  # noqa: PLC0415 - here alone

    class Starving(LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            layers: list[nn.Module] = [nn.Linear(20, 10), nn.Sigmoid()]
            for _ in range(6):
                layers += [nn.Linear(10, 10), nn.Sigmoid()]
            self.net = nn.Sequential(*layers, nn.Linear(10, 4))

        def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
            images, labels = batch
            return nn.functional.cross_entropy(self.net(images), labels)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters())

    return Starving()


def fit(*callbacks: Any, **options: Any) -> Any:
    from lightning.pytorch import Trainer  # noqa: PLC0415

    torch.manual_seed(1)
    data = TensorDataset(torch.rand(STEPS * 16, 20), torch.randint(0, 4, (STEPS * 16,)))
    model = module()
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(callbacks), **options,
    )  # fmt: skip
    trainer.fit(model, DataLoader(data, batch_size=16))
    return model


def test_a_starving_network_is_found_and_trains_to_the_same_bits() -> None:
    from gradprobe.integrations.lightning import GradprobeCallback  # noqa: PLC0415

    callback = GradprobeCallback("net")
    watched, plain = fit(callback), fit()
    for name, value in plain.state_dict().items():
        assert torch.equal(watched.state_dict()[name], value), name
    assert callback.watching is not None
    verdict = callback.watching.diagnosis()
    assert (verdict.verdict, verdict.findings[0].first_step) == ("vanishing", 0)
    metrics = callback.watching.metrics()
    assert len(metrics.steps) == STEPS
    assert np.isfinite(metrics["loss"]).all()


def test_accumulated_steps_are_one_step_each() -> None:
    from gradprobe.integrations.lightning import GradprobeCallback  # noqa: PLC0415

    callback = GradprobeCallback("net")
    fit(callback, accumulate_grad_batches=4)
    assert callback.watching is not None
    assert callback.watching.steps == STEPS // 4
    assert len(callback.watching.gradients().steps) == STEPS // 4
