"""Every call of the HTTP contract that concerns one experiment, written once for both clients."""

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Unpack

from gradprobe.client.answers import Document, checked, parse
from gradprobe.client.arrays import Histograms, Metrics, Series, tensor_of
from gradprobe.client.errors import WaitTimeout
from gradprobe.client.events import Event, EventKind, Source, followed
from gradprobe.client.export import Export, ExportForm, ExportTable
from gradprobe.client.group_calls import GroupCalls
from gradprobe.client.progress import shown
from gradprobe.client.requests import (
    AnyGradientKind,
    GradientKind,
    LayerSelection,
    Parameters,
    Query,
    Range,
    Request,
    Selection,
    creation,
    experiment_path,
    query_of,
    spec_body,
)
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
from gradprobe.statistics import Tensor

if TYPE_CHECKING:
    from gradprobe.blocks import StatisticsBlock
    from gradprobe.spec import Spec
    from gradprobe.subject import WatchedSpec

_PAGE = 100
_LONGEST_HOLD = 30.0  # seconds; the server's own bound of `?wait=`


class Calls(GroupCalls):
    """The methods of `AsyncClient`, and what those of `Client` run; `Client` says what each argument is."""

    @property
    def url(self) -> str:
        """The server's URL."""
        return self._exchange.server.url

    async def create(
        self, spec: "Spec | Mapping[str, Any] | None" = None, *, idempotency_key: str | None = None
    ) -> Experiment:
        """Submit an experiment; an empty spec is the classic vanishing gradient."""
        return await self._exchange.send(Experiment, creation("/experiments", spec_body(spec), idempotency_key))

    async def get(self, experiment_id: str, wait: float | None = None) -> Experiment:
        """One experiment. With `wait` (seconds, at most 30) the server answers when the status changes, or then."""
        path = experiment_path(experiment_id)
        return await self._exchange.read(Experiment, path, {"wait": wait}, patience=wait or 0.0)

    async def list(  # noqa: PLR0913 - all are given by name
        self,
        *,
        status: Status | str | None = None,
        tag: str | None = None,
        verdict: str | None = None,
        name: str | None = None,
        sweep: str | None = None,
        sort: str | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[Experiment, None]:
        """Experiments, newest first, page after page as they are consumed; `tag` is `key:value`, `limit` a total."""
        query: Query = {"status": status, "tag": tag, "verdict": verdict, "name": name, "sweep": sweep, "sort": sort}
        left = limit
        while left is None or left > 0:
            query["limit"] = _PAGE if left is None else min(left, _PAGE)
            page = await self._exchange.read(ExperimentPage, "/experiments", query)
            for experiment in page.items if left is None else page.items[:left]:
                yield experiment
            if page.next_cursor is None:
                return
            query["cursor"] = page.next_cursor
            left = None if left is None else left - len(page.items)

    async def wait(
        self,
        experiment_id: str,
        timeout: float | None = None,
        on_progress: Callable[[Experiment], None] | None = None,
        poll_seconds: float = 0.2,
        *,
        progress: bool = False,
    ) -> Experiment:
        """Wait until the experiment has ended, whichever way, and return it."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with shown(progress, experiment_id) as show:
            while True:
                looked = time.monotonic()
                left = _LONGEST_HOLD if deadline is None else deadline - looked
                # The server holds an answer back until the *status* changes; a progress bar wants more than that.
                hold = None if on_progress or show or left < 1 else min(left, _LONGEST_HOLD)
                experiment = await self.get(experiment_id, wait=hold)
                for tell in (on_progress, show):
                    if tell:
                        tell(experiment)
                if experiment.status.ended:
                    return experiment
                if deadline is not None and time.monotonic() >= deadline:
                    raise WaitTimeout(
                        f"{experiment_id} had not ended after {timeout:g} s; it is {experiment.status} and goes on"
                    )
                await self._exchange.wire.pause(max(0.0, poll_seconds - (time.monotonic() - looked)))

    async def events(
        self,
        experiment_id: str,
        kinds: Iterable[EventKind] | None = None,
        max_points: int | None = None,
        last_event_id: str | None = None,
        patience: float = 60.0,
    ) -> AsyncGenerator[Event, None]:
        """What happens to the experiment, as it happens, up to its end; connects again by itself."""
        query = query_of({"kinds": kinds if kinds is None else [*kinds], "max_points": max_points})
        source = Source(self._exchange, experiment_path(experiment_id, "events"), query)
        events = followed(source, last_event_id, patience)
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()

    async def cancel(self, experiment_id: str) -> Experiment:
        """Ask an experiment to stop; one that has ended stays as it is."""
        return await self._post(experiment_id, "cancel", repeatable=True)

    async def retry(self, experiment_id: str) -> Experiment:
        """Queue a failed or cancelled experiment again."""
        return await self._post(experiment_id, "retry", repeatable=False)

    async def update(
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
        return await self._exchange.send(Experiment, Request("PATCH", experiment_path(experiment_id), body=body))

    async def delete(self, experiment_id: str) -> None:
        """Delete an experiment and all that was measured. A running one is refused: cancel it first."""
        await self._exchange.delete(experiment_path(experiment_id))

    async def gradients(
        self,
        experiment_id: str,
        of: AnyGradientKind = "weights",
        quantiles: Iterable[float] | None = None,
        **selection: Unpack[Selection],
    ) -> Series:
        """Statistics of gradients: ∂L/∂W of `weights`, or δ = ∂L/∂z per sample at each layer's `outputs`."""
        shares = None if quantiles is None else [float(share) for share in quantiles]
        query = query_of({"of": of, "quantiles": shares, **selection})
        return await self._series(experiment_id, "gradients", query, tensor_of(of))

    async def weights(self, experiment_id: str, **selection: Unpack[Selection]) -> Series:
        """Statistics of the weights themselves; the selection is that of `gradients`."""
        return await self._series(experiment_id, "weights", query_of(selection), "weights")

    async def activations(self, experiment_id: str, **selection: Unpack[Selection]) -> Series:
        """Statistics of each layer's activations; the selection is that of `gradients`."""
        return await self._series(experiment_id, "activations", query_of(selection), "activations")

    async def metrics(self, experiment_id: str, **range_: Unpack[Range]) -> Metrics:
        """The run's own series: loss, accuracy and so on; `start`, `stop`, `max_points` select."""
        return Metrics.of_document(await self.document(MetricsDocument, experiment_id, "metrics", query_of(range_)))

    async def histograms(
        self,
        experiment_id: str,
        of: GradientKind = "weights",
        bins: int | None = None,
        **selection: Unpack[LayerSelection],
    ) -> Histograms:
        """Histograms of gradients, on the fixed logarithmic grid or, with `bins`, on so many equal bins a layer."""
        query = query_of({"of": of, "bins": bins, **selection})
        found = await self.document(HistogramDocument, experiment_id, "gradients/histograms", query)
        return Histograms.of_document(found)

    async def diagnosis(
        self, experiment_id: str, preset: str | None = None, **thresholds: float | None
    ) -> DiagnosisDocument:
        """What is wrong, since when, what carries it, and what to change."""
        return await self.document(DiagnosisDocument, experiment_id, "diagnosis", {"preset": preset, **thresholds})

    async def export(
        self,
        experiment_id: str,
        form: ExportForm,
        table: ExportTable | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> Export:
        """What was measured so far as a file for another tool."""
        query = {"format": form, "table": table, "start": start, "stop": stop}
        request = Request("GET", experiment_path(experiment_id, "export"), query, headers={"Accept": "*/*"})
        answer = await self._exchange.answer(request)
        return Export.of_answer(answer.content, answer.headers.get("content-disposition", ""), experiment_id, form)

    async def report(
        self, spec: "WatchedSpec", statistics: "Mapping[Tensor, StatisticsBlock]", stop: int
    ) -> Experiment:
        """Report a run that was measured elsewhere, all steps t < `stop` at once; it is diagnosed as it ends."""
        from gradprobe.client.runs import report_run  # noqa: PLC0415 - NumPy and the spec, which few calls need

        return await report_run(self._exchange, spec, statistics, stop)

    async def predict(self, spec: "Spec | Mapping[str, Any] | None" = None) -> PredictionDocument:
        """What theory says of a spec at initialization, without training it."""
        return await self._exchange.send(PredictionDocument, Request("POST", "/predictions", body=spec_body(spec)))

    async def document(
        self, document: type[Document], experiment_id: str, part: str, parameters: Parameters
    ) -> Document:
        """A part of an experiment, such as `gradients`, as the document that travels: what `--json` prints."""
        return await self._exchange.read(document, experiment_path(experiment_id, part), parameters)

    async def ready(self) -> Readiness:
        """Whether the server can do its work. One that can't answers too, and says which part is missing."""
        answer = await self._exchange.once(Request("GET", "/readyz"))
        return parse(Readiness, answer if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE else checked(answer))

    async def close(self) -> None:
        """Close the connections."""
        await self._exchange.wire.close()

    async def _post(self, experiment_id: str, what: str, repeatable: bool) -> Experiment:
        request = Request("POST", experiment_path(experiment_id, what), repeatable=repeatable)
        return await self._exchange.send(Experiment, request)

    async def _series(self, experiment_id: str, part: str, query: Parameters, tensor: Tensor) -> Series:
        return Series.of_document(await self.document(SeriesDocument, experiment_id, part, query), tensor)
