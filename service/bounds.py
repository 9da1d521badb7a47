"""What an experiment may take at most: refused with what it would take, before a row is written."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from fastapi.exceptions import RequestValidationError

from gradprobe.estimate import Estimate, estimate
from gradprobe.settings import Settings
from gradprobe.spec import Spec

_MEBIBYTE: Final = 1024 * 1024
_HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Bound:
    """One of them: which estimate, which setting, which field to lower, and how to say so."""

    code: str
    setting: str
    place: tuple[str, ...]
    amount: Callable[[Estimate], float]
    words: str
    advice: str


_BOUNDS: Final = (
    Bound(
        "too_many_parameters",
        "maximum_parameters",
        ("network",),
        lambda found: found.parameters,
        "the network would have {:,.0f} parameters, and this server takes at most {:,.0f}",
        "lower depth or width",
    ),
    Bound(
        "too_many_unit_iterations",
        "maximum_unit_iterations",
        ("training", "iterations"),
        lambda found: found.unit_iterations,
        "depth × width × iterations would be {:,.0f}, and this server takes at most {:,.0f}",
        "lower one of them",
    ),
    Bound(
        "takes_too_long",
        "maximum_estimated_hours",
        ("training", "iterations"),
        lambda found: found.seconds / _HOUR,
        "training would take about {:,.3g} hours of one processor, and this server takes at most {:,.3g}",
        "lower iterations, batch_size, depth or width, or record less often",
    ),
    Bound(
        "needs_too_much_memory",
        "maximum_memory_mebibytes",
        ("training", "batch_size"),
        lambda found: found.memory_bytes / _MEBIBYTE,
        "training would need about {:,.0f} MiB of memory, and this server takes at most {:,.0f}",
        "lower batch_size, depth or width",
    ),
    Bound(
        "stores_too_much",
        "maximum_stored_mebibytes",
        ("recording", "every"),
        lambda found: found.stored_bytes / _MEBIBYTE,
        "what is recorded would take about {:,.0f} MiB of storage, and this server takes at most {:,.0f}",
        "record less often (every, histograms_every), fewer tensors, or fewer iterations",
    ),
)


def require_affordable(spec: Spec, settings: Settings) -> None:
    """Raises RequestValidationError for a spec that would take more of anything than the settings allow."""
    faults = [fault | {"loc": ("body", *fault["loc"])} for fault in unaffordable(spec, settings)]
    if faults:
        raise RequestValidationError(faults, body=spec.model_dump())


def unaffordable(spec: Spec, settings: Settings) -> list[dict[str, Any]]:
    """Of what a spec would take more than the settings allow; each fault's place is one within the spec."""
    found = estimate(spec)
    faults = []
    for bound in _BOUNDS:
        amount, most = bound.amount(found), getattr(settings, bound.setting)
        if amount > most:
            told = f"{bound.words.format(amount, most)} (GRADPROBE_{bound.setting.upper()}): {bound.advice}"
            faults.append({"loc": bound.place, "type": bound.code, "msg": told})
    return faults
