"""The weight layers of each kind of network: what shape their weights and outputs have.

Every convolution is 3×3 with a padding of one. Images are halved twice on the way, by convolutions of stride 2: the
units (of `conv` its convolutions, of `resnet` its blocks) are split into three stages as even as can be, and the first
unit of the second and of the third stage has the stride: 28×28, then 14×14, then 7×7.
"""

import itertools
import math
from dataclasses import dataclass

SIDE = 28
INPUTS = SIDE * SIDE
CLASSES = 10
KERNEL = (3, 3)
_STAGES = 3


@dataclass(frozen=True, slots=True)
class WeightLayer:
    """One weight layer.

    Attributes:
        weight_shape: [outputs, inputs] of a dense layer, [outputs, inputs, 3, 3] of a convolution.
        output_shape: of one sample: [outputs], or [outputs, height, width].
        stride: of a convolution, 1 or 2.
        drawn: (Var W, Var b, E[b]) where they were measured and no initialization says them.
    """

    weight_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    stride: int = 1
    drawn: tuple[float, float, float] | None = None

    @property
    def is_convolution(self) -> bool:
        """Whether it is a convolution, and not dense."""
        return len(self.weight_shape) > 2

    @property
    def keeps_width(self) -> bool:
        """Whether it has as many outputs (channels) as inputs, so that a skip connection can go around it."""
        return self.weight_shape[0] == self.weight_shape[1]

    @property
    def multiply_adds(self) -> int:
        """Of one sample's forward pass: every weight, at every position."""
        return math.prod(self.weight_shape) * math.prod(self.output_shape[1:])


def dense_layers(depth: int, width: int) -> list[WeightLayer]:
    """Pixels, `depth` − 1 times `width`, classes."""
    sizes = [INPUTS, *[width] * (depth - 1), CLASSES]
    return [WeightLayer((outputs, inputs), (outputs,)) for inputs, outputs in itertools.pairwise(sizes)]


def convolutional_layers(depth: int, width: int) -> list[WeightLayer]:
    """`depth` − 1 convolutions of `width` channels, then classes from the channels' means."""
    return _image_layers([width] * (depth - 1), _strides(depth - 1))


def residual_layers(depth: int, width: int) -> list[WeightLayer]:
    """A convolution, blocks of two of which the first has the block's stride, then classes from the channels' means."""
    blocks = _strides((depth - 2) // 2)
    return _image_layers([width] * (depth - 1), [1, *(stride for block in blocks for stride in (block, 1))])


def _image_layers(widths: list[int], strides: list[int]) -> list[WeightLayer]:
    layers, side, inputs = [], SIDE, 1
    for width, stride in zip(widths, strides, strict=True):
        side //= stride
        layers.append(WeightLayer((width, inputs, *KERNEL), (width, side, side), stride))
        inputs = width
    return [*layers, WeightLayer((CLASSES, inputs), (CLASSES,))]


def _strides(units: int) -> list[int]:
    stages = [_STAGES * unit // units for unit in range(units)]
    return [2 if unit and stage != stages[unit - 1] else 1 for unit, stage in enumerate(stages)]
