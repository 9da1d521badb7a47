"""What was measured: statistics, histograms and metrics, live and afterwards."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import Connection

from gradprobe.resources import HistogramDocument, MetricsDocument, SeriesDocument
from gradprobe.statistics import Tensor
from gradprobe.store import experiments, series
from gradprobe.store.experiments import Record
from service.columns import Columns, histogram_document, metrics_document, series_document
from service.dependencies import ExperimentId, Service, ServiceDependency
from service.parsing import SeriesRoute
from service.problems import documented
from service.rendering import cache_headers, json_response, not_modified
from service.selection import (
    LayersParameter,
    Selection,
    SelectionDependency,
    StepsDependency,
    chosen_layers,
    chosen_statistics,
    require_recorded,
)

router = APIRouter(
    prefix="/experiments/{experiment_id}",
    route_class=SeriesRoute,
    tags=["series"],
    responses={**documented(HTTPStatus.NOT_FOUND), 304: {"description": "The client has this state already"}},
)

Read = Callable[[Connection, Record], dict[str, Any]]
Of = Annotated[
    Literal["weights", "outputs"],
    Query(description="∂L/∂W, or the gradient at each layer's pre-activation output, per sample."),
]
_GRADIENTS: Final[dict[str, Tensor]] = {"weights": "weight_gradients", "outputs": "output_gradients"}


@router.get("/gradients", response_model=SeriesDocument)
def read_gradients(
    request: Request,
    experiment_id: ExperimentId,
    service: ServiceDependency,
    selection: SelectionDependency,
    of: Of = "weights",
) -> Response:
    """Statistics of the gradients, layer by layer."""
    return _answer(request, service, experiment_id, _series(_GRADIENTS[of], of, selection))


@router.get("/weights", response_model=SeriesDocument)
def read_weights(
    request: Request, experiment_id: ExperimentId, service: ServiceDependency, selection: SelectionDependency
) -> Response:
    """Statistics of the weights, each before its iteration's step."""
    return _answer(request, service, experiment_id, _series("weights", "weights", selection))


@router.get("/activations", response_model=SeriesDocument)
def read_activations(
    request: Request, experiment_id: ExperimentId, service: ServiceDependency, selection: SelectionDependency
) -> Response:
    """Statistics of each layer's activations; the last layer's are the logits."""
    return _answer(request, service, experiment_id, _series("activations", "activations", selection))


@router.get("/metrics", response_model=MetricsDocument)
def read_metrics(
    request: Request, experiment_id: ExperimentId, service: ServiceDependency, steps: StepsDependency
) -> Response:
    """The run's own series, and the test set's at the iterations where it was evaluated."""

    def read(connection: Connection, record: Record) -> dict[str, Any]:
        metrics = series.read_statistics(connection, record.id, "metrics", steps.start, steps.stop)
        evaluation = series.read_statistics(connection, record.id, "evaluation", steps.start, steps.stop)
        return metrics_document(record, metrics, evaluation)

    return _answer(request, service, experiment_id, read)


@router.get("/gradients/histograms", response_model=HistogramDocument)
def read_histograms(
    request: Request,
    experiment_id: ExperimentId,
    service: ServiceDependency,
    steps: StepsDependency,
    layers: LayersParameter = None,
    of: Of = "weights",
) -> Response:
    """Histograms of the gradients on the fixed logarithmic grid; every element is in exactly one bin."""

    def read(connection: Connection, record: Record) -> dict[str, Any]:
        tensor = _GRADIENTS[of]
        require_recorded(record, tensor)
        columns = Columns(tensor, of, chosen_layers(record, layers), [])
        counts = series.read_counts(connection, record.id, tensor, steps.start, steps.stop)
        return histogram_document(record, columns, counts)

    return _answer(request, service, experiment_id, read)


def _series(tensor: Tensor, of: str, selection: Selection) -> Read:
    def read(connection: Connection, record: Record) -> dict[str, Any]:
        require_recorded(record, tensor)
        layers = chosen_layers(record, selection.layers)
        columns = Columns(tensor, of, layers, chosen_statistics(tensor, selection.statistics))
        steps = selection.steps
        block = series.read_statistics(connection, record.id, tensor, steps.start, steps.stop)
        return series_document(record, columns, block)

    return read


def _answer(request: Request, service: Service, experiment_id: str, read: Read) -> Response:
    # One transaction, so that the status and the series it is told with are of the same moment.
    with service.database.read() as connection:
        record = experiments.get(connection, experiment_id)
        document = read(connection, record)
    headers = cache_headers(record)
    return not_modified(request, headers) or json_response(document, headers=headers)
