"""The network: its kind and size, and what is put between and around its layers."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from gradprobe.parts.activation import Activation, PlainActivation, PReLU
from gradprobe.parts.geometry import WeightLayer, convolutional_layers, dense_layers, residual_layers
from gradprobe.parts.initialization import Initialization, ScaledInitialization
from gradprobe.parts.model import SpecModel, refuse

MAXIMUM_PARAMETERS = 50_000_000

_LAYERS = {"mlp": dense_layers, "conv": convolutional_layers, "resnet": residual_layers}
_NORMALIZATION_PARAMETERS = {"none": 0, "batch": 2, "layer": 2, "rms": 1}


class Network(SpecModel):
    """The network; `depth` counts weight layers, the output layer included; layers are `layer1` … `layerN`.

    A hidden layer is: weights → normalization → activation → dropout. With `residual`, a skip connection goes around
    every hidden layer that has as many outputs as inputs.

    Kinds: `mlp`, dense layers of `width` units. `conv`, 3×3 convolutions of `width` channels, then the mean of each
    channel, then a dense output layer; the image is halved twice on the way. `resnet`, the same with residual blocks: a
    convolution, then blocks of two with a skip connection that is added before the second's activation (He et al.
    2016), so its depth is even and at least 4.

    Normalizations of a convolution's output have one scale and shift a channel; `layer` and `rms` go over channels and
    positions.
    """

    kind: Literal["mlp", "conv", "resnet"] = "mlp"
    depth: int = Field(default=6, ge=1, le=1000)
    width: int = Field(default=10, ge=1, le=8192)
    activation: Activation = Field(default_factory=lambda: PlainActivation(name="sigmoid"))
    initialization: Initialization = Field(default_factory=ScaledInitialization)
    normalization: Literal["none", "batch", "layer", "rms"] = "none"
    residual: bool = False
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)

    @property
    def layers(self) -> list[WeightLayer]:
        """The weight layers, input side first."""
        return _LAYERS[self.kind](self.depth, self.width)

    @property
    def layer_names(self) -> list[str]:
        """`layer1` … `layerN`, input side first."""
        return [f"layer{index}" for index in range(1, self.depth + 1)]

    @property
    def activation_names(self) -> list[str]:
        """By layer; the output layer's is `identity`."""
        return [*[str(self.activation.name)] * (self.depth - 1), "identity"]

    @property
    def unknown(self) -> str | None:
        """Why theory can't speak of it: never the case."""
        return None

    @property
    def layer_shapes(self) -> list[tuple[int, ...]]:
        """Shape of each layer's weights, outputs first."""
        return [layer.weight_shape for layer in self.layers]

    @property
    def parameter_count(self) -> int:
        """All that is trained: weights and biases, normalizations' scales and shifts, PReLU's slopes."""
        dense = sum(math.prod(layer.weight_shape) + layer.weight_shape[0] for layer in self.layers)
        scales = _NORMALIZATION_PARAMETERS[self.normalization] * self.width
        slopes = 1 if isinstance(self.activation, PReLU) else 0
        return dense + (self.depth - 1) * (scales + slopes)

    @property
    def output_count(self) -> int:
        """Elements of all layers' outputs for one sample."""
        return sum(math.prod(layer.output_shape) for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Of one sample's forward pass."""
        return sum(layer.multiply_adds for layer in self.layers)

    @model_validator(mode="after")
    def _kind_has_its_depth(self) -> Self:
        if self.kind == "conv" and self.depth < 2:
            message = "a conv network has at least one convolution and its output layer: use a depth of 2 or more"
            refuse(("depth",), self.depth, "depth_of_kind", message)
        if self.kind == "resnet" and (self.depth < 4 or self.depth % 2):
            message = (
                "a resnet is a convolution, blocks of two convolutions and an output layer, so its depth is even and "
                "at least 4: use {nearest}"
            )
            refuse(("depth",), self.depth, "depth_of_kind", message, nearest=max(4, self.depth // 2 * 2))
        return self

    @model_validator(mode="after")
    def _residual_means_something(self) -> Self:
        if self.residual and self.kind == "resnet":
            message = "a resnet has skip connections of its own: leave residual out"
            refuse(("residual",), True, "residual_resnet", message)
        if self.residual and not any(layer.keeps_width for layer in self.layers[:-1]):
            message = "no hidden layer has as many outputs as inputs, so none can be skipped: use a depth of 3 or more"
            refuse(("residual",), True, "nothing_to_skip", message)
        return self

    @model_validator(mode="after")
    def _normalization_means_something(self) -> Self:
        if self.kind == "mlp" and self.width == 1 and self.depth > 1 and self.normalization == "layer":
            message = "layer normalization of a single unit is always zero: use a width of 2 or more"
            refuse(("normalization",), self.normalization, "normalizes_one_unit", message)
        return self

    @model_validator(mode="after")
    def _bound_parameters(self) -> Self:
        if self.parameter_count > MAXIMUM_PARAMETERS:
            message = "the network would have {count} parameters; at most {maximum} are allowed: lower depth or width"
            sizes = {"count": f"{self.parameter_count:,}", "maximum": f"{MAXIMUM_PARAMETERS:,}"}
            refuse((), None, "too_many_parameters", message, **sizes)
        return self
