"""What is known of a training loop that is not ours: its layers as they were measured, and what theory can't know.

Written by `gradprobe.watch`, stored where an experiment has its spec, and read by the diagnosis as if it were one.
"""

import math
from itertools import pairwise
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from gradprobe.parts.activation import Activation, AnyActivation, PlainActivation
from gradprobe.parts.geometry import WeightLayer
from gradprobe.parts.initialization import AnyInitialization, TorchInitialization
from gradprobe.parts.model import SpecModel, Whole
from gradprobe.parts.text import TELL_PRINTABLE, TELL_STORABLE, Printable, Storable

MAXIMUM_LAYERS: Final = 1000
MAXIMUM_ELEMENTS: Final = 2**40
#: As large as a number in single precision can be; theory multiplies these.
MAXIMUM_MOMENT: Final = 1e38
#: Stands for the module's class where there was none: another tool's files were read.
IMPORTED: Final = "imported"


Dimension = Annotated[int, Field(ge=1, le=MAXIMUM_ELEMENTS), Whole]
#: Of a layer's weights, or of its output for one sample.
Shape = Annotated[tuple[Dimension, ...], Field(min_length=1, max_length=8, strict=False)]
LayerName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f,]+$"), Printable]
Moment = Annotated[float, Field(ge=-MAXIMUM_MOMENT, le=MAXIMUM_MOMENT)]
Line = Annotated[str, Field(max_length=200, json_schema_extra=TELL_PRINTABLE), Printable]
Reason = Annotated[str, Field(max_length=500, json_schema_extra=TELL_STORABLE), Storable]


class WatchedLayer(SpecModel):
    """One weight layer as it was at the first step.

    Attributes:
        name: as the module names the parameter's owner, `features.0`.
        weight_shape: outputs first.
        output_shape: of one sample; of a layer that is applied at many positions, of one position.
        activation: what follows before the next layer; None where there is none that is known.
        weight_variance, bias_variance, bias_mean: of the numbers that it began with.
    """

    name: LayerName
    weight_shape: Shape
    output_shape: Shape
    activation: Activation | None = None
    weight_variance: Moment = Field(default=0.0, ge=0.0)
    bias_variance: Moment = Field(default=0.0, ge=0.0)
    bias_mean: Moment = 0.0


class WatchedNetwork(SpecModel):
    """A module of somebody's: its weight layers in the order of execution.

    `unknown` says why theory can't speak of it; null for a plain chain of dense layers, which theory knows. Where the
    weights' shapes are no such chain's, null becomes the reason.
    """

    kind: Literal["watched"] = "watched"
    module: Line = ""
    measured: tuple[WatchedLayer, ...] = Field(min_length=1, max_length=MAXIMUM_LAYERS, strict=False)
    normalization: Literal["none", "batch", "layer", "rms"] = "none"
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    unknown: Reason | None = Field(default=None, validate_default=True)
    left_out: tuple[Reason, ...] = Field(default=(), max_length=1000, strict=False)

    @field_validator("measured")
    @classmethod
    def _not_too_large(cls, measured: tuple[WatchedLayer, ...]) -> tuple[WatchedLayer, ...]:
        # Of all of them: where a tuple's item is at fault, pydantic says as well that the tuple is too short.
        for layer in measured:
            if max(math.prod(layer.weight_shape), math.prod(layer.output_shape)) > MAXIMUM_ELEMENTS:
                told = f"a tensor of {layer.name} has more than {MAXIMUM_ELEMENTS} elements"
                raise PydanticCustomError("too_many_elements", "{told}", {"told": told})
        return measured

    @field_validator("unknown")
    @classmethod
    def _no_chain(cls, unknown: str | None, info: ValidationInfo) -> str | None:
        return unknown or _unlike_a_chain(info.data.get("measured", ()))

    @property
    def layers(self) -> list[WeightLayer]:
        """The weight layers, input side first, with the numbers that they began with."""
        return [
            WeightLayer(
                layer.weight_shape,
                layer.output_shape,
                drawn=(layer.weight_variance, layer.bias_variance, layer.bias_mean),
            )
            for layer in self.measured
        ]

    @property
    def layer_names(self) -> list[str]:
        """As the module names them, input side first."""
        return [layer.name for layer in self.measured]

    @property
    def layer_shapes(self) -> list[tuple[int, ...]]:
        """Shape of each layer's weights, outputs first."""
        return [layer.weight_shape for layer in self.measured]

    @property
    def depth(self) -> int:
        """How many weight layers there are."""
        return len(self.measured)

    @property
    def width(self) -> int:
        """Units of the narrowest hidden layer, or of the only layer."""
        return min(layer.weight_shape[0] for layer in self.measured[:-1] or self.measured)

    @property
    def activation(self) -> AnyActivation:
        """That of all hidden layers, where theory knows the network; else of the first that has one."""
        found = (layer.activation for layer in self.measured)
        return next((one for one in found if one is not None), PlainActivation(name="identity"))

    @property
    def activation_names(self) -> list[str]:
        """By layer; `identity` where there is none that is known."""
        return [layer.activation.name if layer.activation else "identity" for layer in self.measured]

    @property
    def initialization(self) -> AnyInitialization:
        """Never asked: each layer says what its numbers are."""
        return TorchInitialization(name="torch_default")

    @property
    def imported(self) -> bool:
        """Whether it was read from files: no loop is there that could tell more."""
        return self.module == IMPORTED

    @property
    def residual(self) -> bool:
        """Skip connections make a network one that theory is not asked of."""
        return False


def _unlike_a_chain(measured: tuple[WatchedLayer, ...]) -> str | None:
    """Why these can't be dense layers one after another, by their shapes alone."""
    for layer in measured:
        if len(layer.weight_shape) != 2:
            return (
                f"the weights of {layer.name} have the shape {list(layer.weight_shape)}, a dense layer's have two sides"
            )
    for layer, following in pairwise(measured):
        if layer.weight_shape[0] != following.weight_shape[1]:
            return f"{following.name} does not take as many inputs as {layer.name} has outputs"
    return None


class WatchedInputs(SpecModel):
    """Moments of what entered the first layer at the first step: E[x], E[x²], each input's variance over the batch."""

    name: Literal["watched"] = "watched"
    mean: Moment = 0.0
    second: Moment = Field(default=1.0, ge=0.0)
    centered: Moment = Field(default=1.0, ge=0.0)


class WatchedTraining(SpecModel):
    """The loop, as far as it is known; `iterations` is null where nobody said how long it will run."""

    iterations: int | None = Field(default=None, ge=1, le=1_000_000_000)
    batch_size: int = Field(default=1, ge=1)
    precision: Literal["float32", "bfloat16", "float16"] = "float32"


class WatchedOptimizer(SpecModel):
    """The optimizer's class, and its first learning rate."""

    name: Line
    learning_rate: float = Field(ge=0.0)


class WatchedLoss(SpecModel):
    """What is known of the loss: `classes` of a cross-entropy, whose guess is ln classes; null of any other."""

    recorded: bool = False
    classes: int | None = Field(default=None, ge=2)


class OwnClipping(SpecModel):
    """The loop may clip; `clipped_weight_gradients` has the steps at which gradients were changed before the update."""

    kind: Literal["own"] = "own"
