"""The experiment's spec: frozen, bounded, every field with a default, unknown fields refused.

The defaults are the classic demonstration of the vanishing gradient: five hidden layers of ten sigmoid units and a
linear output layer of ten, Xavier-uniform weights, zero biases, softmax cross-entropy, Adam at 0.001, 2,500 iterations
of batches of 30 MNIST images scaled to 0…1.

Everything that is accepted is trained as written; what means nothing is refused, with the place of the field to change.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from gradprobe.parts.activation import Activation, AnyActivation, LeakyReLU, PlainActivation, PReLU
from gradprobe.parts.geometry import CLASSES, INPUTS, SIDE, WeightLayer
from gradprobe.parts.initialization import (
    AnyInitialization,
    Bias,
    Initialization,
    NormalBias,
    NormalInitialization,
    ScaledInitialization,
    TorchInitialization,
    UniformInitialization,
    ZeroInitialization,
)
from gradprobe.parts.model import SpecModel, named, refuse
from gradprobe.parts.network import MAXIMUM_PARAMETERS, Network
from gradprobe.parts.optimizer import (
    SGD,
    AdaptiveOptimizer,
    AnyOptimizer,
    AnySchedule,
    Clipping,
    ConstantSchedule,
    CosineSchedule,
    LinearWarmUpSchedule,
    NormClipping,
    Optimizer,
    OptimizerModel,
    Schedule,
    StepSchedule,
    ValueClipping,
)
from gradprobe.parts.text import Label, Notes, TagKey, Tags, TagValue

__all__ = [
    "CLASSES",
    "INPUTS",
    "MAXIMUM_OUTPUTS",
    "MAXIMUM_PARAMETERS",
    "SCHEMA_VERSION",
    "SGD",
    "SIDE",
    "TENSORS",
    "Activation",
    "AdaptiveOptimizer",
    "AnyActivation",
    "AnyInitialization",
    "AnyOptimizer",
    "AnySchedule",
    "Bias",
    "Clipping",
    "ConstantSchedule",
    "CosineSchedule",
    "Dataset",
    "Initialization",
    "Label",
    "LeakyReLU",
    "LinearWarmUpSchedule",
    "Network",
    "NormClipping",
    "NormalBias",
    "NormalInitialization",
    "Notes",
    "Optimizer",
    "OptimizerModel",
    "PReLU",
    "PlainActivation",
    "Queue",
    "Recording",
    "ScaledInitialization",
    "Schedule",
    "Spec",
    "SpecModel",
    "StepSchedule",
    "TagKey",
    "TagValue",
    "Tags",
    "TensorName",
    "TorchInitialization",
    "Training",
    "UniformInitialization",
    "ValueClipping",
    "WeightLayer",
    "ZeroInitialization",
]

SCHEMA_VERSION = 1
#: Elements of all layers' outputs for one batch: some 4 GiB as float32.
MAXIMUM_OUTPUTS = 1_000_000_000


class Dataset(SpecModel):
    """What is trained on; pixels as `unit` (0…1) or `standard` (mean 0, variance 1 over the training set)."""

    name: Literal["mnist", "fashion_mnist", "synthetic"] = "mnist"
    normalization: Literal["unit", "standard"] = "unit"


class Training(SpecModel):
    """How long, on what, and from which seed (initialization, data order, dropout).

    In `bfloat16` and `float16` the forward and backward pass run in that type where that is safe (torch's autocast);
    the weights stay float32; `float16` has its loss scaled, and the statistics are of the unscaled gradients.
    """

    iterations: int = Field(default=2500, ge=1, le=1_000_000)
    batch_size: int = Field(default=30, ge=1, le=10_000)
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"


TensorName = Literal["weight_gradients", "output_gradients", "weights", "activations"]
TENSORS: tuple[TensorName, ...] = ("weight_gradients", "output_gradients", "weights", "activations")


class Recording(SpecModel):
    """What is recorded, and at which iterations: those divisible by `every`, counting from 0."""

    every: int = Field(default=1, ge=1, le=1_000_000)
    histograms_every: int = Field(default=25, ge=1, le=1_000_000)
    evaluate_every: int = Field(default=500, ge=1, le=1_000_000)
    tensors: tuple[TensorName, ...] = Field(
        default=TENSORS, min_length=1, max_length=4, strict=False, json_schema_extra={"uniqueItems": True}
    )

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
    dataset: Annotated[Dataset, named("mnist", Dataset)] = Field(default_factory=Dataset)
    network: Network = Field(default_factory=Network)
    optimizer: Optimizer = Field(default_factory=AdaptiveOptimizer)
    gradient_clipping: Clipping | None = None
    training: Training = Field(default_factory=Training)
    recording: Recording = Field(default_factory=Recording)
    queue: Queue = Field(default_factory=Queue)

    @model_validator(mode="after")
    def _batch_normalization_needs_a_batch(self) -> Self:
        network = self.network
        normalizes_batches = network.normalization == "batch" and network.kind == "mlp" and network.depth > 1
        if normalizes_batches and self.training.batch_size == 1:
            message = "batch normalization needs more than one sample: use a batch_size of 2 or more"
            refuse(("training", "batch_size"), 1, "batch_of_one", message)
        return self

    @model_validator(mode="after")
    def _bound_outputs(self) -> Self:
        count = self.network.output_count * self.training.batch_size
        if count > MAXIMUM_OUTPUTS:
            message = (
                "the layers' outputs for one batch would have {count} elements; at most {maximum} are allowed: "
                "lower batch_size, depth or width"
            )
            sizes = {"count": f"{count:,}", "maximum": f"{MAXIMUM_OUTPUTS:,}"}
            refuse(("training", "batch_size"), self.training.batch_size, "too_many_outputs", message, **sizes)
        return self
