"""What was measured: statistics, histograms and metrics, live and afterwards."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from gradprobe.resources import HistogramDocument, MetricsDocument, SeriesDocument
from gradprobe.statistics import HISTOGRAM_TENSORS, Tensor, names
from gradprobe.store.experiments import Record
from gradprobe.store.reader import Reader
from service import distributions
from service.answering import Read, answer
from service.columns import Columns, metrics_document, series_document
from service.dependencies import ExperimentId, ServiceDependency
from service.parsing import Route
from service.problems import documented
from service.reduction import read_points
from service.rendering import LIVE, UNCHANGED
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

GRADIENTS: Final[dict[str, Tensor]] = {
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
    tensor = GRADIENTS[of]

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

    return answer(request, service, experiment_id, prepare)


@router.get("/weights", response_model=SeriesDocument)
def read_weights(
    request: Request, experiment_id: ExperimentId, service: ServiceDependency, selection: SelectionDependency
) -> Response:
    """Statistics of the weights, each before its iteration's step."""
    return answer(request, service, experiment_id, _preparing("weights", selection))


@router.get("/activations", response_model=SeriesDocument)
def read_activations(
    request: Request, experiment_id: ExperimentId, service: ServiceDependency, selection: SelectionDependency
) -> Response:
    """Statistics of each layer's activations; the last layer's are the logits."""
    return answer(request, service, experiment_id, _preparing("activations", selection))


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

    return answer(request, service, experiment_id, prepare)


@router.get("/gradients/histograms", response_model=HistogramDocument)
def read_histograms(
    request: Request,
    experiment_id: ExperimentId,
    service: ServiceDependency,
    wanted: RangeDependency,
    asked: DistributionDependency,
) -> Response:
    """Histograms of the gradients; every element is in exactly one bin. With `max_points` counts are summed."""
    tensor = GRADIENTS[asked.of]

    def prepare(record: Record) -> Read:
        require_recorded(record, tensor)
        columns = Columns(tensor, asked.of, chosen_layers(record, asked.layers), [])

        def read(reader: Reader) -> dict[str, Any]:
            counts = reader.counts(tensor, wanted.start, wanted.stop)
            return distributions.histogram_document(record, columns, counts, wanted, asked.bins)

        return read

    return answer(request, service, experiment_id, prepare)


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
