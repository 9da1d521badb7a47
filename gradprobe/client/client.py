"""The client: every call of the HTTP contract as a method that returns a typed document or arrays."""

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, Unpack
from urllib.parse import quote

from pydantic import BaseModel

from gradprobe.client.arrays import Histograms, Metrics, Series
from gradprobe.client.errors import WaitTimeout
from gradprobe.client.events import Event, EventKind, Source, followed
from gradprobe.client.export import Export, ExportForm, ExportTable
from gradprobe.client.groups import GroupCalls
from gradprobe.client.retries import Retries
from gradprobe.client.transport import Document, Parameters, Transport, checked, parse
from gradprobe.errors import ExperimentNotFound
from gradprobe.resources import (
    DiagnosisDocument,
    Experiment,
    ExperimentPage,
    HistogramDocument,
    MetricsDocument,
    PredictionDocument,
    Readiness,
    SeriesDocument,
)
from gradprobe.state import Status

if TYPE_CHECKING:
    from gradprobe.blocks import StatisticsBlock
    from gradprobe.spec import Spec
    from gradprobe.statistics import Tensor
    from gradprobe.subject import WatchedSpec

GradientKind = Literal["weights", "outputs"]
AnyGradientKind = Literal["weights", "outputs", "clipped_weights"]

_PAGE = 100
_ANYTHING = {"Accept": "*/*"}
_PATIENT = Retries()
_LONGEST_HOLD = 30.0  # seconds; the server's own bound of `?wait=`


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


class Client(GroupCalls):
    """A connection to one Gradprobe server.

    Args:
        url: where it listens; by default `$GRADPROBE_URL`, else http://127.0.0.1:8000.
        timeout: seconds to wait for one answer, repetitions included.
        api_key: by default `$GRADPROBE_API_KEY`, else what the file `$GRADPROBE_API_KEY_FILE` holds; "" for
            none. Give it to https alone, or to this machine.
        retries: how often a request is sent again that found no server, was refused for now (429, 503) or lost its
            answer. None is sent again that could do its work twice: what is created carries an `Idempotency-Key`.

    Every method may raise `ProblemError` (the server refused, and says why), `ServerUnreachable` or
    `UnexpectedAnswer`. Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        url: str | None = None,
        timeout: float = 30.0,
        *,
        api_key: str | None = None,
        retries: Retries = _PATIENT,
    ) -> None:
        self._transport = Transport(url, timeout, api_key, retries)

    @property
    def url(self) -> str:
        """The server's URL."""
        return self._transport.url

    def create(
        self, spec: "Spec | Mapping[str, Any] | None" = None, *, idempotency_key: str | None = None
    ) -> Experiment:
        """Submit an experiment; an empty spec is the classic vanishing gradient.

        Args:
            spec: a `Spec`, or a mapping with any part of one.
            idempotency_key: the same key with the same spec gives the same experiment, however often it is sent; by
                default one of this call's own.
        """
        body = spec.model_dump(mode="json") if isinstance(spec, BaseModel) else dict(spec or {})
        headers = {"Idempotency-Key": idempotency_key or secrets.token_urlsafe(24)}
        answer = self._transport.send("POST", "/experiments", body=body, headers=headers, repeatable=True)
        return parse(Experiment, answer)

    def get(self, experiment_id: str, wait: float | None = None) -> Experiment:
        """One experiment. With `wait` (seconds, at most 30) the server answers when the status changes, or then."""
        return self._transport.read(Experiment, _path(experiment_id), {"wait": wait}, patience=wait or 0.0)

    def list(
        self,
        *,
        status: Status | str | None = None,
        tag: str | None = None,
        verdict: str | None = None,
        name: str | None = None,
        sweep: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Experiment]:
        """Experiments, newest first, page after page as they are consumed; `tag` is `key:value`, `limit` a total."""
        query: dict[str, str | int | float | None]
        query = {"status": status, "tag": tag, "verdict": verdict, "name": name, "sweep": sweep, "cursor": None}
        left = limit
        while left is None or left > 0:
            query["limit"] = _PAGE if left is None else min(left, _PAGE)
            page = self._transport.read(ExperimentPage, "/experiments", query)
            yield from page.items if left is None else page.items[:left]
            if page.next_cursor is None:
                return
            query["cursor"] = page.next_cursor
            left = None if left is None else left - len(page.items)

    def wait(
        self,
        experiment_id: str,
        timeout: float | None = None,
        on_progress: Callable[[Experiment], None] | None = None,
        poll_seconds: float = 0.2,
    ) -> Experiment:
        """Block until the experiment has ended, whichever way, and return it.

        Args:
            experiment_id: the experiment.
            timeout: seconds after which to give up; None waits for ever.
            on_progress: called with the experiment after each look.
            poll_seconds: shortest time between two looks.

        Raises:
            WaitTimeout: the experiment goes on, only the waiting is over.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            looked = time.monotonic()
            left = _LONGEST_HOLD if deadline is None else deadline - looked
            # The server holds an answer back until the *status* changes; a progress bar wants more than that.
            hold = None if on_progress or left < 1 else min(left, _LONGEST_HOLD)
            experiment = self.get(experiment_id, wait=hold)
            if on_progress:
                on_progress(experiment)
            if experiment.status.ended:
                return experiment
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeout(
                    f"{experiment_id} had not ended after {timeout:g} s; it is {experiment.status} and goes on"
                )
            time.sleep(max(0.0, poll_seconds - (time.monotonic() - looked)))

    def events(
        self,
        experiment_id: str,
        kinds: Iterable[EventKind] | None = None,
        max_points: int | None = None,
        last_event_id: str | None = None,
        patience: float = 60.0,
    ) -> Iterator[Event]:
        """What happens to the experiment, as it happens, up to its end; connects again by itself.

        Args:
            experiment_id: the experiment.
            kinds: some of `status`, `progress`, `statistics`, `finding`; all by default. `end` always comes, and is the
                last.
            max_points: at most so many points a `statistics` event.
            last_event_id: the id of the last event that was read before, to go on after it.
            patience: seconds that the server may be away before this gives up; nothing is missed meanwhile.
        """
        wanted = None if kinds is None else ",".join(kinds)
        where = Source(self._transport, _path(experiment_id, "events"), {"kinds": wanted, "max_points": max_points})
        return followed(where, last_event_id, patience)

    def cancel(self, experiment_id: str) -> Experiment:
        """Ask an experiment to stop; one that has ended stays as it is."""
        return parse(Experiment, self._transport.send("POST", _path(experiment_id, "cancel"), repeatable=True))

    def retry(self, experiment_id: str) -> Experiment:
        """Queue a failed or cancelled experiment again."""
        return parse(Experiment, self._transport.send("POST", _path(experiment_id, "retry")))

    def update(
        self,
        experiment_id: str,
        *,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        notes: str | None = None,
    ) -> Experiment:
        """Change what is given; None leaves a field as it is."""
        changes = {"name": name, "tags": None if tags is None else dict(tags), "notes": notes}
        body = {field: value for field, value in changes.items() if value is not None}
        return parse(Experiment, self._transport.send("PATCH", _path(experiment_id), body=body))

    def delete(self, experiment_id: str) -> None:
        """Delete an experiment and all that was measured. A running one is refused: cancel it first."""
        self._transport.delete(_path(experiment_id))

    def gradients(
        self,
        experiment_id: str,
        of: AnyGradientKind = "weights",
        quantiles: Iterable[float] | None = None,
        **selection: Unpack[Selection],
    ) -> Series:
        """Statistics of gradients: ∂L/∂W of `weights`, or δ = ∂L/∂z per sample at each layer's `outputs`.

        `clipped_weights` are ∂L/∂W after clipping, where the experiment clips.

        Args:
            experiment_id: the experiment.
            of: which gradient.
            quantiles: shares from 0 to 1; those of the elements come as `series.quantiles[layer][share]`, at the
                steps that have a histogram.
            selection: `layers`, `statistics`, `start`, `stop`, `max_points`.
        """
        shares = None if quantiles is None else ",".join(str(float(share)) for share in quantiles)
        query = {"of": of, "quantiles": shares, **_query(selection)}
        return Series.of_document(self._series(experiment_id, "gradients", query))

    def weights(self, experiment_id: str, **selection: Unpack[Selection]) -> Series:
        """Statistics of the weights themselves; the selection is that of `gradients`."""
        return Series.of_document(self._series(experiment_id, "weights", _query(selection)))

    def activations(self, experiment_id: str, **selection: Unpack[Selection]) -> Series:
        """Statistics of each layer's activations; the selection is that of `gradients`."""
        return Series.of_document(self._series(experiment_id, "activations", _query(selection)))

    def metrics(self, experiment_id: str, **range_: Unpack[Range]) -> Metrics:
        """The run's own series: loss, accuracy and so on; `start`, `stop`, `max_points` select."""
        path = _path(experiment_id, "metrics")
        return Metrics.of_document(self._transport.read(MetricsDocument, path, _query(range_)))

    def histograms(
        self,
        experiment_id: str,
        of: GradientKind = "weights",
        bins: int | None = None,
        **selection: Unpack[LayerSelection],
    ) -> Histograms:
        """Histograms of gradients, on the fixed logarithmic grid or, with `bins`, on so many equal bins a layer.

        With `max_points` the counts of neighbouring steps are summed, so nothing is left out.
        """
        query = {"of": of, "bins": bins, **_query(selection)}
        path = _path(experiment_id, "gradients/histograms")
        return Histograms.of_document(self._transport.read(HistogramDocument, path, query))

    def diagnosis(self, experiment_id: str, preset: str | None = None, **thresholds: float | None) -> DiagnosisDocument:
        """What is wrong, since when, what carries it, and what to change.

        Args:
            experiment_id: the experiment.
            preset: `smdebug`, `autotrainer` or `mindinsight`: as that tool would judge the same measurements.
            thresholds: others than the default ones, by their names in the answer's `thresholds`.
        """
        return self.document(DiagnosisDocument, experiment_id, "diagnosis", {"preset": preset, **thresholds})

    def export(
        self,
        experiment_id: str,
        form: ExportForm,
        table: ExportTable | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> Export:
        """What was measured so far as a file for another tool.

        Args:
            experiment_id: the experiment.
            form: `csv`, `parquet`, `arrow`; `tensorboard`, an event file; `png` and `html`, a picture and a page.
            table: of the first three `layers` (the default), `metrics` or `histograms`.
            start: the first iteration, where not all are wanted.
            stop: the iteration to stop before.

        Returns:
            The file's content, and the name that the server gives it.
        """
        query = {"format": form, "table": table, "start": start, "stop": stop}
        answer = self._transport.send("GET", _path(experiment_id, "export"), parameters=query, headers=_ANYTHING)
        return Export.of_answer(answer.content, answer.headers.get("content-disposition", ""), experiment_id, form)

    def report(self, spec: "WatchedSpec", statistics: "Mapping[Tensor, StatisticsBlock]", stop: int) -> Experiment:
        """Report a run that was measured elsewhere, all steps t < `stop` at once; it is diagnosed as it ends.

        Args:
            spec: what is known of the training.
            statistics: by tensor, [statistic, layer, step] float32 in the order of `gradprobe.statistics`.
            stop: how many steps it had.
        """
        from gradprobe.client.runs import report_run  # noqa: PLC0415 - NumPy and the spec, which few calls need

        return report_run(self._transport, spec, statistics, stop)

    def predict(self, spec: "Spec | Mapping[str, Any] | None" = None) -> PredictionDocument:
        """What theory says of a spec at initialization, without training it."""
        body = spec.model_dump(mode="json") if isinstance(spec, BaseModel) else dict(spec or {})
        return parse(PredictionDocument, self._transport.send("POST", "/predictions", body=body))

    def document(self, document: type[Document], experiment_id: str, part: str, parameters: Parameters) -> Document:
        """A part of an experiment, such as `gradients`, as the document that travels: what `--json` prints."""
        return self._transport.read(document, _path(experiment_id, part), parameters)

    def ready(self) -> Readiness:
        """Whether the server can do its work. One that can't answers too, and says which part is missing."""
        answer = self._transport.once("GET", "/readyz")
        return parse(Readiness, answer if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE else checked(answer))

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _series(self, experiment_id: str, part: str, query: Parameters) -> SeriesDocument:
        return self.document(SeriesDocument, experiment_id, part, query)


def _path(experiment_id: str, part: str = "") -> str:
    if not experiment_id:
        raise ExperimentNotFound("An experiment's id is needed, and this one is empty; list them with `list`")
    # An id comes from people too; a "/", "?" or ".." in it must not reach another resource.
    escaped = quote(experiment_id, safe="").replace(".", "%2E")
    return f"/experiments/{escaped}" + (f"/{part}" if part else "")


def _query(selection: Mapping[str, Any]) -> dict[str, str | int | float | None]:
    return {
        name: value if value is None or isinstance(value, (int, str)) else ",".join(value)
        for name, value in selection.items()
    }
