"""A data set that needs no file: Gaussian blobs in the shape of MNIST, for tests and for theory.

Each sample is drawn from N(μ_c, I), c its class; the ten means μ_c are drawn from N(0, 0.2² I). An ideal classifier of
these inputs errs on fewer than one in a thousand, so a multilayer perceptron can learn them, yet the loss does not
fall to zero at once. It is the same data set for every experiment: an experiment's seed governs order and
initialization alone.
"""

import torch

CLASS_SPREAD = 0.2
_SEED = 28_28_10
_UNIT_RANGE = 3.0


def draw(counts: tuple[int, int], inputs: int, classes: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Inputs (float32 [count, inputs]) and labels (int64 [count]) of the training set and of the test set."""
    generator = torch.Generator().manual_seed(_SEED)
    means = CLASS_SPREAD * torch.randn(classes, inputs, generator=generator)
    samples, labels = [], []
    for count in counts:
        labels.append(torch.randint(classes, (count,), generator=generator))
        samples.append(torch.randn(count, inputs, generator=generator).add_(means[labels[-1]]))
    return samples, labels


def to_unit_(samples: torch.Tensor) -> torch.Tensor:
    """`samples` in place as pixels in 0…1: what is below zero is background, three deviations above it are white.

    A symmetric map would put the mean at 0.5, where plain gradient descent barely moves; this one's 0.14 is MNIST's.
    """
    return samples.div_(_UNIT_RANGE).clamp_(0.0, 1.0)
