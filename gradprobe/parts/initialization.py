"""Initial weights and biases. A convolution's fans count its nine positions: fan_in = 9 · inputs."""

from typing import Annotated, Literal

from pydantic import Field

from gradprobe.parts.model import NonNegative, Positive, SpecModel, named, told_apart_by


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


class NormalInitialization(SpecModel, json_schema_extra=told_apart_by("name")):
    """Weights drawn from N(0, std²)."""

    name: Literal["normal"] = "normal"
    std: Positive = 0.01
    bias: Bias = 0.0


class UniformInitialization(SpecModel, json_schema_extra=told_apart_by("name")):
    """Weights drawn from U(−bound, bound)."""

    name: Literal["uniform"] = "uniform"
    bound: Positive = 0.05
    bias: Bias = 0.0


class ZeroInitialization(SpecModel, json_schema_extra=told_apart_by("name")):
    """All weights zero: only the output layer's bias gets a gradient."""

    name: Literal["zeros"] = "zeros"
    bias: Bias = 0.0


class TorchInitialization(SpecModel, json_schema_extra=told_apart_by("name")):
    """What torch's layers do by themselves: weights and biases from U(−1/√fan_in, 1/√fan_in)."""

    name: Literal["torch_default"] = "torch_default"


AnyInitialization = Annotated[
    ScaledInitialization | NormalInitialization | UniformInitialization | ZeroInitialization | TorchInitialization,
    Field(discriminator="name"),
]
Initialization = Annotated[AnyInitialization, named("xavier_uniform", AnyInitialization)]
