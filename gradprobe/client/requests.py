"""A request as data, and where each of the contract's resources is."""

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict
from urllib.parse import quote

from pydantic import BaseModel

from gradprobe.errors import ExperimentNotFound, SweepNotFound

if TYPE_CHECKING:
    from gradprobe.spec import Spec

Parameters = Mapping[str, str | int | float | None]
Query = dict[str, str | int | float | None]
GradientKind = Literal["weights", "outputs"]
AnyGradientKind = Literal["weights", "outputs", "clipped_weights"]


class Range(TypedDict, total=False):
    """Which iterations: `start` ≤ step < `stop`, reduced to at most `max_points` where given."""

    start: int | None
    stop: int | None
    max_points: int | None


class LayerSelection(Range, total=False):
    """A range, and which layers; all by default."""

    layers: Iterable[str] | None


class Selection(LayerSelection, total=False):
    """A range, which layers and which statistics; all by default."""

    statistics: Iterable[str] | None


class CompareSelection(Selection, total=False):
    """What `compare` tells of each experiment; all by default.

    `of`: `weights`, `outputs` or `clipped_weights`. `include`: any of `series`, `metrics` (those two by default) and
    `histograms`. The others are as for `gradients`.
    """

    of: str
    include: Iterable[str] | None


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Parameters that are None are left out; `patience` is seconds more than the timeout."""

    method: str
    path: str
    parameters: Parameters | None = None
    body: Any = None
    headers: Mapping[str, str] | None = None
    patience: float = 0.0
    #: Whether sending it twice does what once does; by default true of every method but POST.
    repeatable: bool | None = None

    @property
    def harmless(self) -> bool:
        """Whether it may be sent again after an answer that was lost."""
        return self.method != "POST" if self.repeatable is None else self.repeatable

    @property
    def given(self) -> dict[str, str | int | float]:
        """The parameters to send."""
        return {name: value for name, value in (self.parameters or {}).items() if value is not None}


def creation(path: str, body: Any, idempotency_key: str | None) -> Request:
    """A POST that creates, once, however often it is sent."""
    headers = {"Idempotency-Key": idempotency_key or secrets.token_urlsafe(24)}
    return Request("POST", path, body=body, headers=headers, repeatable=True)


def experiment_path(identifier: str, part: str = "") -> str:
    """Of an experiment or a part of it; raises ExperimentNotFound for an empty id."""
    if not identifier:
        raise ExperimentNotFound("An experiment's id is needed, and this one is empty; list them with `list`")
    return _path("experiments", identifier, part)


def group_path(folder: str, identifier: str, part: str = "") -> str:
    """Of a sweep or of remedies; raises SweepNotFound for an empty id."""
    if not identifier:
        raise SweepNotFound("An id is needed, and this one is empty")
    return _path(folder, identifier, part)


def _path(folder: str, identifier: str, part: str) -> str:
    if not isinstance(identifier, str):
        raise TypeError(f"an id is a string, such as experiment.id, not {type(identifier).__name__}")
    # An id comes from people too; a "/", "?" or ".." in it must not reach another resource.
    escaped = quote(identifier, safe="").replace(".", "%2E")
    return f"/{folder}/{escaped}" + (f"/{part}" if part else "")


def query_of(selection: Mapping[str, Any]) -> Query:
    """A selection as query parameters; what is several values is one, with commas."""
    return {
        name: value if value is None or isinstance(value, int | float | str) else ",".join(map(str, value))
        for name, value in selection.items()
    }


def spec_body(spec: "Spec | Mapping[str, Any] | None", given_alone: bool = False) -> dict[str, Any]:
    """A spec as it is sent; `given_alone` leaves out what a `Spec` was not given."""
    if isinstance(spec, BaseModel):
        return spec.model_dump(mode="json", exclude_unset=given_alone)
    if spec is not None and not isinstance(spec, Mapping):
        raise TypeError(f"a spec is a Spec or a mapping, not {type(spec).__name__}")
    return dict(spec or {})
