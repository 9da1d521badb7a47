"""What is wrong with an experiment, since when, what carries it, and what to change."""

from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response

from gradprobe.diagnosis import VERSION, Thresholds, diagnose
from gradprobe.diagnosis.presets import Preset, judge
from gradprobe.resources import DiagnosisDocument
from gradprobe.store import measurements
from gradprobe.store.experiments import Record
from gradprobe.store.reader import Reader
from gradprobe.subject import subject_of
from service.answering import Read, answer
from service.dependencies import ExperimentId, ServiceDependency
from service.parsing import Route
from service.problems import documented
from service.rendering import LIVE, UNCHANGED
from service.selection import refused

router = APIRouter(
    prefix="/experiments/{experiment_id}",
    route_class=Route,
    tags=["diagnosis"],
    responses={**documented(HTTPStatus.NOT_FOUND), 200: {"headers": LIVE}, 304: UNCHANGED},
)

_DEFAULT: Final = Thresholds()
_Positive = Annotated[float | None, Query(gt=0, le=1e6, allow_inf_nan=False)]
_Share = Annotated[float | None, Query(ge=0, le=1, allow_inf_nan=False)]
PresetParameter = Annotated[
    Preset | None, Query(description="Another tool's rules with its documented thresholds, instead of our own.")
]


async def _signal_thresholds(
    depth_limit: _Positive = None, band: _Positive = None, recovered: _Share = None, lost: _Share = None
) -> dict[str, float | None]:
    return {"depth_limit": depth_limit, "band": band, "recovered": recovered, "lost": lost}


async def _rate_thresholds(moved: _Positive = None, rewritten: _Positive = None) -> dict[str, float | None]:
    return {"moved": moved, "rewritten": rewritten}


async def _loss_thresholds(
    learned: _Share = None,
    rise: _Positive = None,
    swing: _Positive = None,
    overfitted: _Positive = None,
    patience: _Positive = None,
) -> dict[str, float | None]:
    return {"learned": learned, "rise": rise, "swing": swing, "overfitted": overfitted, "patience": patience}


async def _thresholds(
    signal: Annotated[dict[str, float | None], Depends(_signal_thresholds)],
    rates: Annotated[dict[str, float | None], Depends(_rate_thresholds)],
    loss: Annotated[dict[str, float | None], Depends(_loss_thresholds)],
) -> Thresholds:
    """The default ones, with those that the query names in their place."""
    given = {name: value for name, value in {**signal, **rates, **loss}.items() if value is not None}
    return Thresholds(**given)


ThresholdsDependency = Annotated[Thresholds, Depends(_thresholds)]


@router.get("/diagnosis", response_model=DiagnosisDocument)
def read_diagnosis(
    request: Request,
    experiment_id: ExperimentId,
    service: ServiceDependency,
    thresholds: ThresholdsDependency,
    preset: PresetParameter = None,
) -> Response:
    """The verdicts, at initialization and in training, of what was measured so far.

    An experiment that was measured once can be judged again with other thresholds, or as another tool would.
    """
    if preset is not None and thresholds.changed():
        name = next(iter(thresholds.changed()))
        raise refused("query", name, "preset_has_its_own", "A preset has its own thresholds; leave one of them out.")

    def prepare(record: Record) -> Read:
        return lambda reader: _document(record, reader, thresholds, preset)

    return answer(request, service, experiment_id, prepare)


def _document(record: Record, reader: Reader, thresholds: Thresholds, preset: Preset | None) -> dict[str, Any]:
    measured = measurements.read(reader, subject_of(record.spec))
    found = judge(measured, preset) if preset is not None else diagnose(measured, thresholds)
    return {
        "experiment_id": record.id,
        "status": record.status,
        "version": VERSION,
        "preset": preset,
        "thresholds": {} if preset is not None else thresholds.values(),
        **found.document(),
        "prediction": measured.prediction.document() if measured.prediction is not None else None,
    }
