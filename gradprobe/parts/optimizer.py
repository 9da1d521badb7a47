"""How gradients become steps: optimizers, learning-rate schedules, clipping."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from gradprobe.parts.model import Positive, SpecModel, named, told_apart_by


class ConstantSchedule(SpecModel):
    """The learning rate stays as given."""

    name: Literal["constant"] = "constant"


class CosineSchedule(SpecModel, json_schema_extra=told_apart_by("name")):
    """Half a cosine from the learning rate down to `final_factor` of it at the last iteration."""

    name: Literal["cosine"] = "cosine"
    final_factor: float = Field(default=0.0, ge=0.0, le=1.0)


class StepSchedule(SpecModel, json_schema_extra=told_apart_by("name")):
    """Multiplied by `factor` after every `every` iterations."""

    name: Literal["step"] = "step"
    every: int = Field(default=1000, ge=1, le=1_000_000)
    factor: float = Field(default=0.1, gt=0.0, le=1.0)


class LinearWarmUpSchedule(SpecModel, json_schema_extra=told_apart_by("name")):
    """Grows linearly over the first `iterations`: 1/iterations of the learning rate, 2/iterations, …, all of it."""

    name: Literal["linear_warmup"] = "linear_warmup"
    iterations: int = Field(default=100, ge=1, le=1_000_000)


AnySchedule = Annotated[
    ConstantSchedule | CosineSchedule | StepSchedule | LinearWarmUpSchedule, Field(discriminator="name")
]
Schedule = Annotated[AnySchedule, named("constant", AnySchedule)]


class OptimizerModel(SpecModel):
    """What every optimizer has. Weight decay is of all parameters but PReLU's slopes, which it would make ReLUs."""

    name: str
    learning_rate: float = Field(default=0.001, gt=0.0, le=1e3)
    weight_decay: float = Field(default=0.0, ge=0.0, le=1e3)
    schedule: Schedule = Field(default_factory=ConstantSchedule)


class AdaptiveOptimizer(OptimizerModel):
    """Adam, AdamW (decoupled weight decay) or RMSprop with torch's default coefficients."""

    name: Literal["adam", "adamw", "rmsprop"] = "adam"


class SGD(OptimizerModel, json_schema_extra=told_apart_by("name")):
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
Optimizer = Annotated[AnyOptimizer, named("adam", AnyOptimizer)]


class NormClipping(SpecModel, json_schema_extra=told_apart_by("kind")):
    """Scale all gradients so that their global norm is at most `max_norm`."""

    kind: Literal["norm"] = "norm"
    max_norm: Positive = 1.0


class ValueClipping(SpecModel, json_schema_extra=told_apart_by("kind")):
    """Clamp each gradient element to ±`max_value`."""

    kind: Literal["value"] = "value"
    max_value: Positive = 0.5


Clipping = Annotated[NormClipping | ValueClipping, Field(discriminator="kind")]
