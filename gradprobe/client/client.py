"""The client: every call of the HTTP contract as a method that returns a typed document or arrays."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, Unpack

from gradprobe.client.answers import Document
from gradprobe.client.arrays import Histograms, Metrics, Series
from gradprobe.client.calls import Calls
from gradprobe.client.events import Event, EventKind
from gradprobe.client.exchange import Exchange
from gradprobe.client.export import Export, ExportForm, ExportTable
from gradprobe.client.groups import GroupClient
from gradprobe.client.requests import AnyGradientKind, GradientKind, LayerSelection, Parameters, Range, Selection
from gradprobe.client.retries import Retries
from gradprobe.client.server import Server
from gradprobe.client.wire import BlockingWire, each, now
from gradprobe.resources import DiagnosisDocument, Experiment, PredictionDocument, Readiness
from gradprobe.state import Status

if TYPE_CHECKING:
    from gradprobe.blocks import StatisticsBlock
    from gradprobe.spec import Spec
    from gradprobe.statistics import Tensor
    from gradprobe.subject import WatchedSpec

_PATIENT = Retries()


class Client(GroupClient):
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
        server = Server.found(url, timeout, api_key, retries)
        super().__init__(Calls(Exchange(server, BlockingWire(server))))

    @property
    def url(self) -> str:
        """The server's URL."""
        return self._calls.url

    def create(
        self, spec: "Spec | Mapping[str, Any] | None" = None, *, idempotency_key: str | None = None
    ) -> Experiment:
        """Submit an experiment; an empty spec is the classic vanishing gradient.

        Args:
            spec: a `Spec`, or a mapping with any part of one.
            idempotency_key: the same key with the same spec gives the same experiment, however often it is sent; by
                default one of this call's own.
        """
        return now(self._calls.create(spec, idempotency_key=idempotency_key))

    def get(self, experiment_id: str, wait: float | None = None) -> Experiment:
        """One experiment. With `wait` (seconds, at most 30) the server answers when the status changes, or then."""
        return now(self._calls.get(experiment_id, wait))

    def list(  # noqa: PLR0913 - all are given by name
        self,
        *,
        status: Status | str | None = None,
        tag: str | None = None,
        verdict: str | None = None,
        name: str | None = None,
        sweep: str | None = None,
        sort: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Experiment]:
        """Experiments, newest first, page after page as they are consumed; `tag` is `key:value`, `limit` a total.

        `sort`: `created`, `name`, `status`, `verdict` or `accuracy`, with a minus descending.
        """
        found = self._calls.list(
            status=status, tag=tag, verdict=verdict, name=name, sweep=sweep, sort=sort, limit=limit
        )
        return each(found)

    def wait(
        self,
        experiment_id: str,
        timeout: float | None = None,
        on_progress: Callable[[Experiment], None] | None = None,
        poll_seconds: float = 0.2,
        *,
        progress: bool = False,
    ) -> Experiment:
        """Block until the experiment has ended, whichever way, and return it.

        Args:
            experiment_id: the experiment.
            timeout: seconds after which to give up; None waits for ever.
            on_progress: called with the experiment after each look.
            poll_seconds: shortest time between two looks.
            progress: draw a bar meanwhile, in a notebook or on a terminal (standard error); nothing anywhere else.

        Raises:
            WaitTimeout: the experiment goes on, only the waiting is over.
        """
        return now(self._calls.wait(experiment_id, timeout, on_progress, poll_seconds, progress=progress))

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
        return each(self._calls.events(experiment_id, kinds, max_points, last_event_id, patience))

    def cancel(self, experiment_id: str) -> Experiment:
        """Ask an experiment to stop; one that has ended stays as it is."""
        return now(self._calls.cancel(experiment_id))

    def retry(self, experiment_id: str) -> Experiment:
        """Queue a failed or cancelled experiment again."""
        return now(self._calls.retry(experiment_id))

    def update(
        self,
        experiment_id: str,
        *,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        notes: str | None = None,
    ) -> Experiment:
        """Change what is given; None leaves a field as it is."""
        return now(self._calls.update(experiment_id, name=name, tags=tags, notes=notes))

    def delete(self, experiment_id: str) -> None:
        """Delete an experiment and all that was measured. A running one is refused: cancel it first."""
        now(self._calls.delete(experiment_id))

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
        return now(self._calls.gradients(experiment_id, of, quantiles, **selection))

    def weights(self, experiment_id: str, **selection: Unpack[Selection]) -> Series:
        """Statistics of the weights themselves; the selection is that of `gradients`."""
        return now(self._calls.weights(experiment_id, **selection))

    def activations(self, experiment_id: str, **selection: Unpack[Selection]) -> Series:
        """Statistics of each layer's activations; the selection is that of `gradients`."""
        return now(self._calls.activations(experiment_id, **selection))

    def metrics(self, experiment_id: str, **range_: Unpack[Range]) -> Metrics:
        """The run's own series: loss, accuracy and so on; `start`, `stop`, `max_points` select."""
        return now(self._calls.metrics(experiment_id, **range_))

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
        return now(self._calls.histograms(experiment_id, of, bins, **selection))

    def diagnosis(self, experiment_id: str, preset: str | None = None, **thresholds: float | None) -> DiagnosisDocument:
        """What is wrong, since when, what carries it, and what to change.

        Args:
            experiment_id: the experiment.
            preset: `smdebug`, `autotrainer` or `mindinsight`: as that tool would judge the same measurements.
            thresholds: others than the default ones, by their names in the answer's `thresholds`.
        """
        return now(self._calls.diagnosis(experiment_id, preset, **thresholds))

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
        return now(self._calls.export(experiment_id, form, table, start, stop))

    def report(self, spec: "WatchedSpec", statistics: "Mapping[Tensor, StatisticsBlock]", stop: int) -> Experiment:
        """Report a run that was measured elsewhere, all steps t < `stop` at once; it is diagnosed as it ends.

        Args:
            spec: what is known of the training.
            statistics: by tensor, [statistic, layer, step] float32 in the order of `gradprobe.statistics`.
            stop: how many steps it had.
        """
        return now(self._calls.report(spec, statistics, stop))

    def predict(self, spec: "Spec | Mapping[str, Any] | None" = None) -> PredictionDocument:
        """What theory says of a spec at initialization, without training it."""
        return now(self._calls.predict(spec))

    def document(self, document: type[Document], experiment_id: str, part: str, parameters: Parameters) -> Document:
        """A part of an experiment, such as `gradients`, as the document that travels: what `--json` prints."""
        return now(self._calls.document(document, experiment_id, part, parameters))

    def ready(self) -> Readiness:
        """Whether the server can do its work. One that can't answers too, and says which part is missing."""
        return now(self._calls.ready())

    def close(self) -> None:
        """Close the connections."""
        now(self._calls.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
