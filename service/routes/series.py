"""What was measured: statistics, histograms and metrics, live and afterwards."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from gradprobe.resources import HistogramDocument, MetricsDocument, SeriesDocument
from gradprobe.statistics import HISTOGRAM_TENSORS, Tensor, names
from gradprobe.store import experiments
from gradprobe.store.experiments import Record
from gradprobe.store.reader import Reader
from service import distributions
from service.columns import Columns, metrics_document, series_document
from service.dependencies import ExperimentId, Service, ServiceDependency
from service.encoding import encode
from service.parsing import Route
from service.problems import documented
from service.reduction import read_points
from service.rendering import LIVE, UNCHANGED, cache_headers, json_bytes, not_modified
from service.selection import (
    AnyGradientParameter,
    DistributionDependency,
    QuantilesDependency,
    RangeDependency,
    Selection,
    SelectionDependency,
    chosen_layers,
    chosen_statistics,
    refused,
    require_recorded,
)

router = APIRouter(
    prefix="/experiments/{experiment_id}",
    route_class=Route,
    tags=["series"],
    responses={
        **documented(HTTPStatus.NOT_FOUND),
        200: {"headers": LIVE},
        304: UNCHANGED,
    },
)

Body = tuple[bytes, dict[str, str]]
Read = Callable[[Reader], dict[str, Any]]
_GRADIENTS: Final[dict[str, Tensor]] = {
    "weights": "weight_gradients",
    "outputs": "output_gradients",
    "clipped_weights": "clipped_weight_gradients",
}


@router.get("/gradients", response_model=SeriesDocument)
def read_gradients(
    request: Request,
    experiment_id: ExperimentId,
    service: ServiceDependency,
    selection: SelectionDependency,
    quantiles: QuantilesDependency,
    of: AnyGradientParameter = "weights",
) -> Response:
    """Statistics of the gradients, layer by layer; with `quantiles` those of their distribution as well."""
    tensor = _GRADIENTS[of]

    if quantiles and tensor not in HISTOGRAM_TENSORS:
        raise refused("query", "quantiles", "no_histogram", f"There are no histograms of {of}; leave quantiles out.")

    def prepare(record: Record) -> Read:
        columns = _columns(record, tensor, of, selection)

        def read(reader: Reader) -> dict[str, Any]:
            document = _series(record, columns, selection, reader)
            if quantiles:
                wanted = selection.range
                counts = reader.counts(tensor, wanted.start, wanted.stop)
                told, nonfinite = distributions.quantile_columns(record, columns, counts, wanted, quantiles)
                document["quantiles"] = told
                document["nonfinite"] += nonfinite
            return document

        return read

    return _answer(request, service, experiment_id, prepare)


@router.get("/weights", response_model=SeriesDocument)
def read_weights(
    request: Request, experiment_id: ExperimentId, service: ServiceDependency, selection: SelectionDependency
) -> Response:
    """Statistics of the weights, each before its iteration's step."""
    return _answer(request, service, experiment_id, _preparing("weights", selection))


@router.get("/activations", response_model=SeriesDocument)
def read_activations(
    request: Request, experiment_id: ExperimentId, service: ServiceDependency, selection: SelectionDependency
) -> Response:
    """Statistics of each layer's activations; the last layer's are the logits."""
    return _answer(request, service, experiment_id, _preparing("activations", selection))


@router.get("/metrics", response_model=MetricsDocument)
def read_metrics(
    request: Request, experiment_id: ExperimentId, service: ServiceDependency, wanted: RangeDependency
) -> Response:
    """The run's own series, and the test set's at the iterations where it was evaluated."""

    def prepare(record: Record) -> Read:
        def read(reader: Reader) -> dict[str, Any]:
            recording = record.spec["recording"]
            schedules: dict[Tensor, int] = {"metrics": recording["every"], "evaluation": recording["evaluate_every"]}
            found = {
                tensor: read_points(reader, tensor, wanted, range(len(names(tensor))), (every, record.iterations))
                for tensor, every in schedules.items()
            }
            return metrics_document(record, found["metrics"], found["evaluation"])

        return read

    return _answer(request, service, experiment_id, prepare)


@router.get("/gradients/histograms", response_model=HistogramDocument)
def read_histograms(
    request: Request,
    experiment_id: ExperimentId,
    service: ServiceDependency,
    wanted: RangeDependency,
    asked: DistributionDependency,
) -> Response:
    """Histograms of the gradients; every element is in exactly one bin. With `max_points` counts are summed."""
    tensor = _GRADIENTS[asked.of]

    def prepare(record: Record) -> Read:
        require_recorded(record, tensor)
        columns = Columns(tensor, asked.of, chosen_layers(record, asked.layers), [])

        def read(reader: Reader) -> dict[str, Any]:
            counts = reader.counts(tensor, wanted.start, wanted.stop)
            return distributions.histogram_document(record, columns, counts, wanted, asked.bins)

        return read

    return _answer(request, service, experiment_id, prepare)


def _preparing(tensor: Tensor, selection: Selection) -> Callable[[Record], Read]:
    def prepare(record: Record) -> Read:
        columns = _columns(record, tensor, tensor, selection)
        return lambda reader: _series(record, columns, selection, reader)

    return prepare


def _columns(record: Record, tensor: Tensor, of: str, selection: Selection) -> Columns:
    require_recorded(record, tensor)
    layers = chosen_layers(record, selection.layers)
    return Columns(tensor, of, layers, chosen_statistics(tensor, selection.statistics))


def _series(record: Record, columns: Columns, selection: Selection, reader: Reader) -> dict[str, Any]:
    schedule = record.spec["recording"]["every"], record.iterations
    points = read_points(reader, columns.tensor, selection.range, columns.statistics, schedule)
    return series_document(record, columns, points)


def _answer(request: Request, service: Service, experiment_id: str, prepare: Callable[[Record], Read]) -> Response:
    """The document that `prepare` reads once it has refused what is not there; 304 before any block is read."""
    # One transaction, so that the status and the series it is told with are of the same moment.
    with service.database.read() as connection:
        record = experiments.get(connection, experiment_id)
        read = prepare(record)
        headers = cache_headers(request, record)
        unchanged = not_modified(request, headers)
        if unchanged is not None:
            return unchanged
        key = headers["ETag"], request.url.path, request.url.query
        body: Body | None = service.cache.get(key) if record.status.ended else None
        if body is None:
            cache = service.cache if record.status.ended else None
            document = read(Reader(connection, record.id, cache, record.row_version))
    if body is None:
        body = encode(json_bytes(document), request.state.coding)
        if record.status.ended:
            service.cache.put(key, body, len(body[0]))
    return Response(body[0], HTTPStatus.OK, headers | body[1], "application/json")
