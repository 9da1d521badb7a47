"""What a watcher is told: the difference between what it knows and what the database holds.

An event's id is all that its reader knows once it has read it. So a stream needs no memory of its own: any process can
go on where another stopped, a reader that was away for long or reads slowly is told the same in fewer events, and no
recorded step is left out.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Self

from gradprobe.diagnosis import diagnose
from gradprobe.errors import CorruptBlock, InvalidEventId
from gradprobe.state import Status
from gradprobe.statistics import Tensor, names
from gradprobe.store import measurements
from gradprobe.store.experiments import Record
from gradprobe.store.reader import Reader
from gradprobe.subject import subject_of
from service.columns import Columns, metrics_document, series_document
from service.reduction import Range, read_points
from service.rendering import experiment_document, time_text

Kind = Literal["status", "progress", "statistics", "finding", "end"]
KINDS: Final[tuple[Kind, ...]] = ("status", "progress", "statistics", "finding", "end")

_logger = logging.getLogger(__name__)

_UNKNOWN: Final = "unknown"
_ID: Final = re.compile(
    rf"([0-9]{{1,9}})-({'|'.join(Status)}|{_UNKNOWN})-([0-9]{{1,10}})-([0-9]{{1,10}})(?:-f([0-9]{{1,4}}))?(-end)?"
)
_TOLD: Final[dict[str, tuple[Tensor, str]]] = {
    "weight_gradients": ("weight_gradients", "weights"),
    "output_gradients": ("output_gradients", "outputs"),
}
_STATISTIC: Final = "mean_abs"


@dataclass(frozen=True, slots=True)
class Known:
    """What a watcher knows: attempt, status and iteration, and that it was told of all steps before `next_step`.

    `iteration` is -1 and `status` None where it knows nothing; `findings` counts those of the end it was told.
    """

    attempt: int = 0
    status: Status | None = None
    iteration: int = -1
    next_step: int = 0
    findings: int = 0
    ended: bool = False

    @property
    def id(self) -> str:
        """As the id of the event that told the last of it."""
        findings = f"-f{self.findings}" if self.findings else ""
        end = "-end" if self.ended else ""
        return f"{self.attempt}-{self.status or _UNKNOWN}-{max(self.iteration, 0)}-{self.next_step}{findings}{end}"

    @classmethod
    def of_id(cls, identifier: str) -> Self:
        """What the reader of an event of this id knows; raises InvalidEventId for what is none."""
        found = _ID.fullmatch(identifier)
        if found is None:
            raise InvalidEventId
        attempt, status, iteration, next_step, findings, end = found.groups()
        known_status = None if status == _UNKNOWN else Status(status)
        return cls(int(attempt), known_status, int(iteration), int(next_step), int(findings or 0), end is not None)

    def has_the_end_of(self, record: Record) -> bool:
        """Whether nothing is left to tell."""
        return self.ended and (self.attempt, self.status) == (record.attempt, record.status)


@dataclass(frozen=True, slots=True)
class Wish:
    """Which events a watcher wants, and how many points a `statistics` event may have."""

    kinds: frozenset[Kind] = frozenset(KINDS)
    max_points: int = 100


@dataclass(frozen=True, slots=True)
class Event:
    """One event, and what its reader knows then."""

    kind: Kind
    data: dict[str, Any]
    known: Known


def news(known: Known, record: Record, reader: Reader, wish: Wish) -> Iterator[Event]:
    """Everything that a watcher who knows so much does not know yet, in order.

    The status comes first, but one that ends the experiment after all that was measured; what the diagnosis found is
    told then, and not while findings still come and go.
    """
    changed = (known.status, known.attempt) != (record.status, record.attempt)
    known = _consistent(known, record)
    if changed:
        known = replace(known, findings=0)
    if changed and not record.status.ended:
        yield from _wanted(wish, status := _status(known, record))
        known = status.known
    if known.iteration != record.iteration:
        yield from _wanted(wish, progress := _progress(known, record))
        known = progress.known
    if "statistics" in wish.kinds and known.next_step < _readable(record):
        yield (statistics := _statistics(known, record, reader, wish))
        known = statistics.known
    if record.status.ended and not known.ended:
        if changed:
            yield from _wanted(wish, status := _status(known, record))
            known = status.known
        if "finding" in wish.kinds:
            yield from _findings(known, record, reader)
        yield Event("end", experiment_document(record), replace(known, findings=0, ended=True))


def _wanted(wish: Wish, event: Event) -> Iterator[Event]:
    if event.kind in wish.kinds:
        yield event


def _consistent(known: Known, record: Record) -> Known:
    """A new attempt may have measured steps again, and a database that was restored has fewer: told from the start."""
    if known.attempt != record.attempt or known.next_step > _readable(record):
        known = replace(known, attempt=record.attempt, next_step=0)
    return known if known.has_the_end_of(record) else replace(known, ended=False)


def _readable(record: Record) -> int:
    """All recorded steps before this one can be read; the last evaluation stands after the last iteration."""
    complete = record.status.ended and record.iteration == record.iterations
    return record.iteration + 1 if complete else record.iteration


def _status(known: Known, record: Record) -> Event:
    data = {
        "experiment_id": record.id,
        "status": record.status,
        "attempt": record.attempt,
        "started_at": time_text(record.started_at),
        "finished_at": time_text(record.finished_at),
        "verdict": record.verdict,
        "error": record.error,
    }
    return Event("status", data, replace(known, status=record.status))


def _progress(known: Known, record: Record) -> Event:
    data = {"experiment_id": record.id, "iteration": record.iteration, "iterations": record.iterations}
    return Event("progress", data, replace(known, iteration=record.iteration))


def _statistics(known: Known, record: Record, reader: Reader, wish: Wish) -> Event:
    stop = _readable(record)
    data = _summary(record, reader, Range(known.next_step, stop, wish.max_points))
    return Event("statistics", data, replace(known, next_step=stop))


def _findings(known: Known, record: Record, reader: Reader) -> Iterator[Event]:
    """Those that are not known yet, weightiest first; none where the diagnosis itself fails: the end has to be told."""
    try:
        measured = measurements.read(reader, subject_of(record.spec))
        found = diagnose(measured).findings if measured.blocks else ()
    except (CorruptBlock, ValueError):
        _logger.exception("%s: no findings to tell", record.id, extra={"experiment_id": record.id})
        return
    for number, finding in enumerate(found[known.findings :], known.findings + 1):
        data = {"experiment_id": record.id, **finding.document()}
        yield Event("finding", data, replace(known, findings=number))


def _summary(record: Record, reader: Reader, wanted: Range) -> dict[str, Any]:
    """Which steps can be read now, and enough of them to draw: the documents that reading would give, reduced."""
    recording = record.spec["recording"]
    schedule = recording["every"], record.iterations
    data: dict[str, Any] = {"experiment_id": record.id, "start": wanted.start, "stop": wanted.stop}
    for name, (tensor, of) in _TOLD.items():
        data[name] = None
        if tensor in recording["tensors"]:
            columns = Columns(tensor, of, range(len(record.layers)), [names(tensor).index(_STATISTIC)])
            points = read_points(reader, tensor, wanted, columns.statistics, schedule)
            data[name] = series_document(record, columns, points)
    schedules: dict[Tensor, int] = {"metrics": recording["every"], "evaluation": recording["evaluate_every"]}
    found = {
        tensor: read_points(reader, tensor, wanted, range(len(names(tensor))), (every, record.iterations))
        for tensor, every in schedules.items()
    }
    return data | {"metrics": metrics_document(record, found["metrics"], found["evaluation"])}
