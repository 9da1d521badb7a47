"""The experiment's spec: frozen, bounded, every field with a default, unknown fields refused.

The defaults are the classic demonstration of the vanishing gradient: five hidden layers of ten sigmoid units and a
linear output layer of ten, Xavier-uniform weights, zero biases, softmax cross-entropy, Adam at 0.001, 2,500 iterations
of batches of 30 MNIST images scaled to 0…1.

The whole contract is modelled. What this release does not train yet is refused with the error type `not_built`
and never ignored.
"""

import itertools
import json
import re
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

SCHEMA_VERSION = 1
INPUTS = 784
CLASSES = 10
MAXIMUM_PARAMETERS = 50_000_000

Positive = Annotated[float, Field(gt=0.0, le=1e6)]
NonNegative = Annotated[float, Field(ge=0.0, le=1e6)]
Built = TypeVar("Built")


class SpecModel(BaseModel):
    """Base of every part of the spec: immutable, strict types, finite numbers, no unknown field."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _named(default: str, form: Any) -> BeforeValidator:
    """A bare string stands for the object of that name with its defaults; an object without a name is `default`'s."""

    def expand(value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        return {"name": default, **value} if isinstance(value, dict) else value

    return BeforeValidator(expand, json_schema_input_type=str | form)


def _only(value: Built, built: Built, what: str) -> Built:
    if value != built:
        raise PydanticCustomError(
            "not_built", "{what} is not built yet; use {built}", {"what": what, "built": json.dumps(built)}
        )
    return value


def _printable(text: str) -> str:
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", text):
        raise PydanticCustomError("control_character", "control characters are not allowed")
    return text


def _storable(text: str) -> str:
    if re.search(r"[\x00\ud800-\udfff]", text):
        raise PydanticCustomError("control_character", "NUL and lone surrogates are not allowed")
    return text


Label = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
TagKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-/]{1,64}$")]
TagValue = Annotated[str, Field(max_length=200), AfterValidator(_printable)]
Tags = Annotated[dict[TagKey, TagValue], Field(max_length=32)]
Notes = Annotated[str, Field(max_length=10_000), AfterValidator(_storable)]


class Dataset(SpecModel):
    """What is trained on; pixels as `unit` (0…1) or `standard` (mean 0, variance 1 over the training set)."""

    name: Literal["mnist", "fashion_mnist", "synthetic"] = "mnist"
    normalization: Literal["unit", "standard"] = "unit"


class PlainActivation(SpecModel):
    """An activation without parameters; torch's definitions, `gelu` in its exact form."""

    name: Literal["sigmoid", "tanh", "relu", "elu", "selu", "gelu", "silu", "softplus", "hardtanh", "identity"]


class LeakyReLU(SpecModel):
    """max(z, 0) + negative_slope · min(z, 0)."""

    name: Literal["leaky_relu"] = "leaky_relu"
    negative_slope: float = Field(default=0.01, ge=0.0, le=1.0)


class PReLU(SpecModel):
    """Leaky ReLU whose slope, one a layer, is trained."""

    name: Literal["prelu"] = "prelu"
    initial_slope: float = Field(default=0.25, ge=0.0, le=1.0)


AnyActivation = Annotated[PlainActivation | LeakyReLU | PReLU, Field(discriminator="name")]
Activation = Annotated[AnyActivation, _named("sigmoid", AnyActivation)]


class NormalBias(SpecModel):
    """Biases drawn from N(0, std²)."""

    name: Literal["normal"] = "normal"
    std: NonNegative = 0.05


Bias = Annotated[float, Field(ge=-1e3, le=1e3)] | NormalBias


class ScaledInitialization(SpecModel):
    """Variance gain² · 2 / (fan_in + fan_out) for Xavier, gain² · 2 / fan_in for He, gain² / fan_in for LeCun."""

    name: Literal[
        "xavier_uniform",
        "xavier_normal",
        "he_uniform",
        "he_normal",
        "lecun_uniform",
        "lecun_normal",
        "orthogonal",
    ] = "xavier_uniform"
    gain: Positive = 1.0
    bias: Bias = 0.0


class NormalInitialization(SpecModel):
    """Weights drawn from N(0, std²)."""

    name: Literal["normal"] = "normal"
    std: Positive = 0.01
    bias: Bias = 0.0


class UniformInitialization(SpecModel):
    """Weights drawn from U(−bound, bound)."""

    name: Literal["uniform"] = "uniform"
    bound: Positive = 0.05
    bias: Bias = 0.0


class ZeroInitialization(SpecModel):
    """All weights zero: only the output layer's bias gets a gradient."""

    name: Literal["zeros"] = "zeros"
    bias: Bias = 0.0


class TorchInitialization(SpecModel):
    """What `torch.nn.Linear` does by itself: weights and biases from U(−1/√fan_in, 1/√fan_in)."""

    name: Literal["torch_default"] = "torch_default"


AnyInitialization = Annotated[
    ScaledInitialization | NormalInitialization | UniformInitialization | ZeroInitialization | TorchInitialization,
    Field(discriminator="name"),
]
Initialization = Annotated[AnyInitialization, _named("xavier_uniform", AnyInitialization)]


class Network(SpecModel):
    """The network; `depth` counts weight layers, the output layer included; layers are `layer1` … `layerN`."""

    kind: Literal["mlp", "conv", "resnet"] = "mlp"
    depth: int = Field(default=6, ge=1, le=1000)
    width: int = Field(default=10, ge=1, le=8192)
    activation: Activation = Field(default_factory=lambda: PlainActivation(name="sigmoid"))
    initialization: Initialization = Field(default_factory=ScaledInitialization)
    normalization: Literal["none", "batch", "layer", "rms"] = "none"
    residual: bool = False
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)

    @field_validator("kind")
    @classmethod
    def _kind_is_built(cls, value: str) -> str:
        return _only(value, "mlp", f'the network kind "{value}"')

    @field_validator("normalization")
    @classmethod
    def _normalization_is_built(cls, value: str) -> str:
        return _only(value, "none", f'the normalization "{value}"')

    @field_validator("residual")
    @classmethod
    def _residual_is_built(cls, value: bool) -> bool:
        return _only(value, False, "a residual network")

    @field_validator("dropout")
    @classmethod
    def _dropout_is_built(cls, value: float) -> float:
        return _only(value, 0.0, "dropout")

    @property
    def layer_shapes(self) -> list[tuple[int, int]]:
        """(outputs, inputs) of each weight layer, input side first."""
        sizes = [INPUTS, *[self.width] * (self.depth - 1), CLASSES]
        return [(outputs, inputs) for inputs, outputs in itertools.pairwise(sizes)]

    @property
    def layer_names(self) -> list[str]:
        """`layer1` … `layerN`, input side first."""
        return [f"layer{index}" for index in range(1, self.depth + 1)]

    @property
    def parameter_count(self) -> int:
        """Weights and biases."""
        return sum(outputs * (inputs + 1) for outputs, inputs in self.layer_shapes)

    @model_validator(mode="after")
    def _bound_parameters(self) -> Self:
        if self.parameter_count > MAXIMUM_PARAMETERS:
            raise PydanticCustomError(
                "too_many_parameters",
                "the network would have {count} parameters; at most {maximum} are allowed: lower depth or width",
                {"count": f"{self.parameter_count:,}", "maximum": f"{MAXIMUM_PARAMETERS:,}"},
            )
        return self


class ConstantSchedule(SpecModel):
    """The learning rate stays as given."""

    name: Literal["constant"] = "constant"


class CosineSchedule(SpecModel):
    """Half a cosine from the learning rate down to `final_factor` of it at the last iteration."""

    name: Literal["cosine"] = "cosine"
    final_factor: float = Field(default=0.0, ge=0.0, le=1.0)


class StepSchedule(SpecModel):
    """Multiplied by `factor` after every `every` iterations."""

    name: Literal["step"] = "step"
    every: int = Field(default=1000, ge=1)
    factor: float = Field(default=0.1, gt=0.0, le=1.0)


class LinearWarmUpSchedule(SpecModel):
    """Grows linearly from 0 to the learning rate over the first `iterations`."""

    name: Literal["linear_warmup"] = "linear_warmup"
    iterations: int = Field(default=100, ge=1)


AnySchedule = Annotated[
    ConstantSchedule | CosineSchedule | StepSchedule | LinearWarmUpSchedule, Field(discriminator="name")
]
Schedule = Annotated[AnySchedule, _named("constant", AnySchedule)]


class OptimizerModel(SpecModel):
    """What every optimizer has."""

    name: str
    learning_rate: float = Field(default=0.001, gt=0.0, le=1e3)
    weight_decay: float = Field(default=0.0, ge=0.0, le=1e3)
    schedule: Schedule = Field(default_factory=ConstantSchedule)

    @field_validator("schedule")
    @classmethod
    def _schedule_is_built(cls, value: AnySchedule) -> AnySchedule:
        _only(value.name, "constant", f'the schedule "{value.name}"')
        return value


class AdaptiveOptimizer(OptimizerModel):
    """Adam, AdamW (decoupled weight decay) or RMSprop with torch's default coefficients."""

    name: Literal["adam", "adamw", "rmsprop"] = "adam"


class SGD(OptimizerModel):
    """Stochastic gradient descent; `nesterov` needs a momentum."""

    name: Literal["sgd"] = "sgd"
    momentum: float = Field(default=0.0, ge=0.0, lt=1.0)
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0.0:
            raise PydanticCustomError("nesterov_without_momentum", "nesterov needs a momentum greater than 0")
        return self


AnyOptimizer = Annotated[AdaptiveOptimizer | SGD, Field(discriminator="name")]
Optimizer = Annotated[AnyOptimizer, _named("adam", AnyOptimizer)]


class NormClipping(SpecModel):
    """Scale all gradients so that their global norm is at most `max_norm`."""

    kind: Literal["norm"] = "norm"
    max_norm: Positive = 1.0


class ValueClipping(SpecModel):
    """Clamp each gradient element to ±`max_value`."""

    kind: Literal["value"] = "value"
    max_value: Positive = 0.5


Clipping = Annotated[NormClipping | ValueClipping, Field(discriminator="kind")]


class Training(SpecModel):
    """How long, on what, and from which seed (initialization and data order)."""

    iterations: int = Field(default=2500, ge=1, le=1_000_000)
    batch_size: int = Field(default=30, ge=1, le=10_000)
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"

    @field_validator("precision")
    @classmethod
    def _precision_is_built(cls, value: str) -> str:
        return _only(value, "float32", f'the precision "{value}"')


TensorName = Literal["weight_gradients", "output_gradients", "weights", "activations"]
TENSORS: tuple[TensorName, ...] = ("weight_gradients", "output_gradients", "weights", "activations")


class Recording(SpecModel):
    """What is recorded, and at which iterations: those divisible by `every`, counting from 0."""

    every: int = Field(default=1, ge=1, le=1_000_000)
    histograms_every: int = Field(default=25, ge=1, le=1_000_000)
    evaluate_every: int = Field(default=500, ge=1, le=1_000_000)
    tensors: tuple[TensorName, ...] = Field(default=TENSORS, min_length=1, max_length=4, strict=False)

    @field_validator("tensors")
    @classmethod
    def _no_tensor_twice(cls, value: tuple[TensorName, ...]) -> tuple[TensorName, ...]:
        if len(set(value)) != len(value):
            raise PydanticCustomError("duplicate", "each tensor may be named once")
        return value


class Queue(SpecModel):
    """Where it stands among the waiting: higher priorities are taken first."""

    priority: int = Field(default=0, ge=0, le=9)


class Spec(SpecModel):
    """An experiment. `Spec()` is the classic sigmoid net."""

    name: Label | None = None
    tags: Tags = Field(default_factory=dict)
    dataset: Annotated[Dataset, _named("mnist", Dataset)] = Field(default_factory=Dataset)
    network: Network = Field(default_factory=Network)
    optimizer: Optimizer = Field(default_factory=AdaptiveOptimizer)
    gradient_clipping: Clipping | None = None
    training: Training = Field(default_factory=Training)
    recording: Recording = Field(default_factory=Recording)
    queue: Queue = Field(default_factory=Queue)

    @field_validator("gradient_clipping")
    @classmethod
    def _clipping_is_built(cls, value: SpecModel | None) -> SpecModel | None:
        return _only(value, None, "gradient clipping")
