"""What a diagnosis is of: an experiment's spec, or what is known of a loop that `gradprobe.watch` watched."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from gradprobe.parts.watched import (
    OwnClipping,
    WatchedInputs,
    WatchedLoss,
    WatchedNetwork,
    WatchedOptimizer,
    WatchedTraining,
)
from gradprobe.spec import Label, Network, Recording, Spec, SpecModel, Tags

__all__ = ["AnyNetwork", "AnySpec", "WatchedSpec", "is_watched", "subject_of"]


class WatchedSpec(SpecModel):
    """What `gradprobe.watch` says of a loop, where an experiment has its spec.

    `recording` means what it means there; `dataset` are the moments of the first batch.
    """

    source: Literal["watched"] = "watched"
    name: Label | None = None
    tags: Tags = Field(default_factory=dict)
    dataset: WatchedInputs = Field(default_factory=WatchedInputs)
    network: WatchedNetwork
    optimizer: WatchedOptimizer
    gradient_clipping: OwnClipping = Field(default_factory=OwnClipping)
    training: WatchedTraining = Field(default_factory=WatchedTraining)
    loss: WatchedLoss = Field(default_factory=WatchedLoss)
    recording: Recording = Field(default_factory=Recording)


AnySpec = Spec | WatchedSpec
AnyNetwork = Network | WatchedNetwork


def is_watched(document: Mapping[str, Any]) -> bool:
    """Whether a stored document is of a watched loop, and not an experiment's spec."""
    return document.get("source") == "watched"


def subject_of(document: Mapping[str, Any]) -> AnySpec:
    """From what is stored; raises pydantic's ValidationError for what no release has written."""
    return WatchedSpec.model_validate(document) if is_watched(document) else Spec.model_validate(document)
