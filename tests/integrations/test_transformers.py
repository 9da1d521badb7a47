"""The callback in Hugging Face's own `Trainer`, over one of their models."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytestmark = [pytest.mark.integrations, pytest.mark.filterwarnings("ignore")]  # theirs, and many

STEPS = 30


def train(directory: Path, *callbacks: Any) -> Any:
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments  # noqa: PLC0415

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    numbers = np.random.default_rng(0)
    data = [
        {"input_ids": numbers.integers(0, 50, 12).tolist(), "labels": int(numbers.integers(0, 2))}
        for _ in range(STEPS * 8)
    ]
    arguments = TrainingArguments(
        output_dir=str(directory), max_steps=STEPS, per_device_train_batch_size=8, report_to=[], save_strategy="no",
        disable_tqdm=True, use_cpu=True, seed=0,
    )  # fmt: skip
    Trainer(model=model, args=arguments, train_dataset=data, callbacks=list(callbacks)).train()
    return model


def test_their_model_is_measured_and_trains_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # This checkout's folder of that name passes for their package.
    monkeypatch.setattr("transformers.trainer.is_datasets_available", lambda: False)
    from gradprobe.integrations.transformers import GradprobeCallback  # noqa: PLC0415

    callback = GradprobeCallback()
    watched, plain = train(tmp_path / "watched", callback), train(tmp_path / "plain")
    for name, value in plain.state_dict().items():
        assert torch.equal(watched.state_dict()[name], value), name
    watching = callback.watching
    assert watching is not None
    assert watching.steps == STEPS
    deltas, metrics = watching.gradients(of="outputs"), watching.metrics()
    assert "bert.encoder.layer.0.attention.self.query" in deltas.names
    assert np.isfinite(deltas["classifier"]["norm"]).all()
    assert np.isfinite(metrics["loss"]).all()
    assert "theory" in str(watching.diagnosis())
