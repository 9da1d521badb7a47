"""Activations: elementwise functions φ after every weight layer but the last."""

from typing import Annotated, Literal

from pydantic import Field

from gradprobe.parts.model import SpecModel, named, told_apart_by


class PlainActivation(SpecModel):
    """An activation without parameters; torch's definitions, `gelu` in its exact form."""

    name: Literal["sigmoid", "tanh", "relu", "elu", "selu", "gelu", "silu", "softplus", "hardtanh", "identity"] = (
        "sigmoid"
    )


class LeakyReLU(SpecModel, json_schema_extra=told_apart_by("name")):
    """max(z, 0) + negative_slope · min(z, 0)."""

    name: Literal["leaky_relu"] = "leaky_relu"
    negative_slope: float = Field(default=0.01, ge=0.0, le=1.0)


class PReLU(SpecModel, json_schema_extra=told_apart_by("name")):
    """Leaky ReLU whose slope, one a layer, is a parameter of its own: trained, and spared from weight decay."""

    name: Literal["prelu"] = "prelu"
    initial_slope: float = Field(default=0.25, ge=0.0, le=1.0)


AnyActivation = Annotated[PlainActivation | LeakyReLU | PReLU, Field(discriminator="name")]
Activation = Annotated[AnyActivation, named("sigmoid", AnyActivation)]
