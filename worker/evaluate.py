"""Loss and accuracy over a whole set of images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradprobe.blocks import StatisticsBlock

_IMAGES_AT_ONCE = 5000
#: Convolutions' outputs are hundreds of times as large as their inputs.
_IMAGES_AT_ONCE_CONVOLVED = 500


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean cross-entropy in nats, and the share classified correctly."""

    loss: float
    accuracy: float


def evaluate(network: nn.Module, images: Tensor, labels: Tensor) -> Evaluation:
    """Over images [N, 784] and labels [N], in float32; leaves gradients, mode and random numbers alone."""
    was_training = network.training
    convolves = any(isinstance(module, nn.Conv2d) for module in network.modules())
    at_once = _IMAGES_AT_ONCE_CONVOLVED if convolves else _IMAGES_AT_ONCE
    network.eval()
    loss = torch.zeros((), dtype=torch.float64, device=images.device)
    correct = torch.zeros((), dtype=torch.int64, device=images.device)
    with torch.no_grad():
        for some, wanted in zip(images.split(at_once), labels.split(at_once), strict=True):
            logits = network(some)
            loss += functional.cross_entropy(logits.double(), wanted, reduction="sum")
            correct += (logits.argmax(1) == wanted).sum()
    network.train(was_training)
    return Evaluation(float(loss) / len(labels), float(correct) / len(labels))


def block_of(evaluations: Sequence[tuple[int, Evaluation]]) -> StatisticsBlock:
    """What was found before these steps, as a block of `statistics.STATISTICS["evaluation"]`, [2, 1, S]."""
    steps = np.array([step for step, _ in evaluations], np.int64)
    values = np.array([[found.loss, found.accuracy] for _, found in evaluations], np.float32).reshape(-1, 2)
    return StatisticsBlock(steps, values.T[:, None, :])
