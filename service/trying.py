"""From a diagnosis to the trial of its remedies: which changes, over which seeds, within the bounds."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy import Connection

from gradprobe.diagnosis import Diagnosis, diagnose
from gradprobe.diagnosis.findings import Remedy
from gradprobe.errors import NothingToRemedy, RunNotTrainedHere, UnknownRemedy
from gradprobe.objects import ObjectStore
from gradprobe.settings import Settings
from gradprobe.spec import Spec
from gradprobe.store import measurements
from gradprobe.store.experiments import Record
from gradprobe.store.reader import Reader
from gradprobe.trial.control import controls
from gradprobe.trial.design import PLAIN, Change, Design, remedies_in, seeds_from, spec_of
from service.bounds import require_affordable, unaffordable


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which remedies, by id (None: all that this server can afford), over how many seeds, with how many controls."""

    remedies: Sequence[str] | None
    seeds: int
    controls: int | None


def diagnosis_of(connection: Connection, record: Record, store: ObjectStore | None) -> Diagnosis:
    """What the rules say of the experiment now; raises RunNotTrainedHere for a loop that reported."""
    if record.source is not None:
        raise RunNotTrainedHere
    return diagnose(measurements.read(Reader(connection, record.id, store=store), Spec.model_validate(record.spec)))


def design_trial(record: Record, found: Diagnosis, wanted: Wanted, settings: Settings) -> Design:
    """The trial of an experiment's remedies; the same for the same experiment and request.

    Raises:
        NothingToRemedy: no finding has a remedy that this server can afford.
        UnknownRemedy: one was asked for that the diagnosis does not have.
        RequestValidationError: it would be more experiments, or a larger one, than this server takes.
    """
    chosen = [
        Change("remedy", remedy.id, remedy.patch, remedy.reason)
        for remedy in _chosen(remedies_in(found), wanted.remedies)
    ]
    if wanted.remedies is None:
        chosen = [change for change in chosen if _affordable(record, change, settings)]
    for change in chosen:
        require_affordable(spec_of(record.spec, change, 0), settings)
    if not chosen:
        raise NothingToRemedy
    spec = Spec.model_validate(record.spec)
    number = len(chosen) if wanted.controls is None else min(wanted.controls, len(chosen))
    random = controls(spec, chosen[:number], record.id, lambda changed: not unaffordable(changed, settings))
    seeds = seeds_from(spec.training.seed, wanted.seeds)
    design = Design(found.verdict, seeds, (PLAIN, *chosen, *random))
    if design.size > settings.maximum_sweep:
        raise RequestValidationError([_too_many(design.size, settings)], body={"seeds": wanted.seeds})
    return design


def _chosen(known: Sequence[Remedy], wanted: Sequence[str] | None) -> list[Remedy]:
    if not known:
        raise NothingToRemedy
    if wanted is None:
        return list(known)
    by_id = {remedy.id: remedy for remedy in known}
    unknown = next((identifier for identifier in wanted if identifier not in by_id), None)
    if unknown is not None:
        raise UnknownRemedy(f"The diagnosis has no remedy {unknown[:100]!r}; it has {', '.join(by_id)}.")
    return [by_id[identifier] for identifier in dict.fromkeys(wanted)]


def _affordable(record: Record, change: Change, settings: Settings) -> bool:
    try:
        return not unaffordable(spec_of(record.spec, change, 0), settings)
    except ValidationError:
        return False


def _too_many(size: int, settings: Settings) -> dict[str, object]:
    told = (
        f"This would be {size:,} experiments, and this server takes at most {settings.maximum_sweep:,} "
        "(GRADPROBE_MAXIMUM_SWEEP): ask for fewer seeds or remedies"
    )
    return {"loc": ("body", "seeds"), "type": "too_many_members", "msg": told}
