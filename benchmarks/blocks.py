"""Reads, lists, writes and deletions with ten million blocks in the store, against the same with ten thousand."""

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import func, select

from benchmarks import bulk
from benchmarks.results import Figure, Goal, Result, Row, Table, perform
from benchmarks.servers import gradprobe_server, postgresql
from benchmarks.timing import Timed, Times, clocks, once
from benchmarks.training import new_lease
from gradprobe import statistics
from gradprobe.blocks import StatisticsBlock
from gradprobe.identifiers import new_sweep_id
from gradprobe.probe import Measured
from gradprobe.settings import Settings
from gradprobe.spec import Spec
from gradprobe.statistics import Tensor
from gradprobe.store import experiments, retention, sweeps
from gradprobe.store.database import Database
from gradprobe.store.experiments import Member
from gradprobe.store.listing import Filters, Position, Sort
from gradprobe.store.sweeps import Group
from gradprobe.store.tables import experiments as table
from gradprobe.store.tables import name_parts
from service.pagination import encode_cursor
from worker.flush import Flusher
from worker.loop import Chunk

DATABASES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
FEW, MANY = 10_000, 10_000_000
RATIO, HIGH_RATIO = "ratio", "ratio of p99"
#: Reads and lists; of what is written and deleted the 99th percentile is the disk's.
READ_GOALS: Final = (Goal(RATIO, "≤", 1.5), Goal(HIGH_RATIO, "≤", 1.5))
WRITE_GOALS: Final = READ_GOALS[:1]

#: Counts every experiment, and says so: decision 0032.
_COUNTED = "figures: /metrics"
_PAGE = 20  # in a list, however few there are to list from
_PURGES = 4
_LARGE_PURGE = 2000
_WARM_ROUNDS = 5
_MEMBERS, _SWEEPS = 1000, 10

Request = tuple[str, Mapping[str, Any]]
Ask = Callable[[random.Random, Sequence[str]], Request]


@dataclass(slots=True)
class Store:
    """One filled database, asked over HTTP and by the store's own functions."""

    size: int  # blocks, or experiments where there are no blocks
    identifiers: list[str]
    database: Database
    client: httpx.Client
    flusher: Flusher
    chance: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311 - the same every time
    flushed: int = 0  # iterations
    purged: int = 0  # days
    sweep: str = ""  # the last one

    def ask(self, ask: Ask) -> Timed:
        """One request, drawn anew."""
        path, query = ask(self.chance, self.identifiers)
        began = clocks()
        self.client.get(path, params=dict(query)).raise_for_status()
        return Timed.between(began, clocks(), 1)

    def flush(self) -> Timed:
        """One flush of an experiment that runs, of as many steps as a block of the others has."""
        chunk = _chunk(self.flushed)
        began = clocks()
        self.flusher.grow(chunk)
        self.flusher.write(chunk.iteration)
        self.flushed = chunk.iteration
        return Timed.between(began, clocks(), 1)

    def create(self) -> Timed:
        """What `POST /experiments` stores."""
        name = f"{self.chance.choice(bulk.ACTIVATIONS)} depth {self.chance.randint(2, 100)} run {self._letters()}"
        spec = Spec(name=name)
        began = clocks()
        with self.database.write() as connection:
            experiments.create(connection, spec, 1)
        return Timed.between(began, clocks(), 1)

    def create_sweep(self) -> Timed:
        """What `POST /sweeps` stores, with names of sixty characters whose first forty are the same."""
        group = Group(new_sweep_id(), "sweep", {}, {})
        common = f"initialization and learning rate, {self._letters()}: "
        members = [Member(Spec(name=f"{common}rate=0.{seed % 97:02}, seed={seed}"), {}) for seed in range(_MEMBERS)]
        began = clocks()
        with self.database.write() as connection:
            sweeps.create(connection, group)
            experiments.create_members(connection, group.id, members, 1)
        self.sweep = group.id
        return Timed.between(began, clocks(), 1)

    def delete_sweep(self) -> Timed:
        """What `DELETE /sweeps/…` does to the last one."""
        began = clocks()
        with self.database.write() as connection:
            sweeps.remove(connection, self.sweep, "sweep")
        return Timed.between(began, clocks(), 1)

    def _letters(self) -> str:
        return "".join(self.chance.choices("0123456789abcdefghjkmnpqrstvwxyz", k=6))

    def purge(self, days: int = 1) -> Timed:
        """What `gradprobe purge` does once it has started: delete those that ended on the oldest days there are."""
        self.purged += days
        seconds = (len(self.identifiers) // bulk.A_DAY - self.purged) * bulk.DAY_SECONDS
        began = clocks()
        with self.database.read() as connection:
            expected = retention.count_old(connection, seconds)
        while self._deleted(retention.delete_old, seconds):
            pass
        self._deleted(sweeps.delete_empty, seconds)
        timed = Timed.between(began, clocks(), 1)
        if expected != days * bulk.A_DAY:
            raise AssertionError(f"{expected} experiments were old enough, not those of {days} days")
        return timed

    def _deleted(self, action: Callable[..., int], seconds: float) -> int:
        with self.database.write() as connection:
            return action(connection, seconds)


@dataclass(frozen=True, slots=True)
class Effort:
    """How many blocks at the least and at the most, and how often each thing is done."""

    few: int = FEW
    many: int = MANY
    rounds: int = 400
    large_purge: int = _LARGE_PURGE
    lists_alone: bool = False


QUICK = Effort(bulk.BLOCKS_EACH * 100, bulk.BLOCKS_EACH * 400, 5, 100)


def run(
    quick: bool, blocks: int | None = None, databases: Sequence[str] = tuple(DATABASES), *, lists_alone: bool = False
) -> Result:
    """Both sizes side by side, one database after the other."""
    effort = QUICK if quick else Effort()
    effort = replace(effort, many=blocks or effort.many, lists_alone=lists_alone)
    found = [table for kind in databases for table in measure(kind, effort)]
    return Result("blocks.lists" if lists_alone else "blocks", found)


def measure(kind: str, effort: Effort) -> list[Table]:
    """One database: two stores of it, filled, then each thing done to both in turns."""
    columns = TextColumn("{task.description:42}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="gradprobe-bench-", ignore_cleanup_errors=True)))
        directory.chmod(0o711)  # under root PostgreSQL runs as another user
        progress = stack.enter_context(Progress(*columns))
        stores, sizes = [], []
        for blocks in (effort.few, effort.many):
            settings = stack.enter_context(_settings(directory / str(blocks), kind))
            store, row = _filled(stack, settings, blocks, effort.lists_alone, progress)
            stores.append(store)
            sizes.append(row)
        few, many = stores
        name = DATABASES[kind]
        if effort.lists_alone:
            kept = _names_row(many)
            rows = _list_rows(few, many, effort.rounds, progress)
            title = f"{name}, milliseconds with {few.size:,} experiments and with {many.size:,}"
            return [Table(title, rows), Table(f"{name}, what is kept of names", [kept])]
        rows = _rows(few, many, effort.rounds, progress)
        purge = _large_purge(many, effort.large_purge)
        return [
            Table(f"{name}, milliseconds with {few.size:,} blocks and with {many.size:,}", rows),
            Table(f"{name}, what is stored", sizes),
            Table(f"{name}, a large purge", [purge]),
        ]


@contextmanager
def _settings(directory: Path, kind: str) -> Iterator[Settings]:
    directory.mkdir()
    if kind == "sqlite":
        yield Settings(data_directory=directory)
        return
    with postgresql(directory) as url:
        (directory / "client").mkdir()
        yield Settings(data_directory=directory / "client", database_url=url)


def _filled(
    stack: ExitStack, settings: Settings, blocks: int, lists_alone: bool, progress: Progress
) -> tuple[Store, Row]:
    task = progress.add_task(f"{DATABASES[settings.database.get_backend_name()]}: blocks stored", total=blocks)
    number = blocks // bulk.BLOCKS_EACH
    identifiers: list[str] = []
    advance = partial(progress.advance, task)
    fill = partial(bulk.fill, settings, number, advance, blocks_too=not lists_alone)
    seconds = once(lambda: identifiers.extend(fill()))
    database = Database(settings.database)
    stack.callback(database.close)
    with database.read() as connection:
        size = bulk.bytes_on_disk(connection)
        inside = 0.0 if lists_alone else bulk.average_bytes(connection, identifiers[0])
    # What it keeps of ended experiments is off: of few experiments it would soon hold all.
    client = stack.enter_context(gradprobe_server(settings, 0))
    flusher = Flusher(database, new_lease(database, bulk.SPEC))
    store = Store(number if lists_alone else blocks, identifiers, database, client, flusher)
    figures = {"experiments": number, "MB on disk": size / 1e6, "bytes a block on disk": size / blocks}
    return store, Row(f"{blocks:,} blocks", {**figures, "bytes in a block": inside, "s to fill": seconds})


def _rows(few: Store, many: Store, rounds: int, progress: Progress) -> list[Row]:
    """Each thing is done once a round to both, the one first and then the other."""
    reads = {name: partial(Store.ask, ask=ask) for name, ask in _asks().items()}
    counting = {_COUNTED: partial(Store.ask, ask=lambda _chance, _identifiers: ("/metrics", {}))}
    found = _in_turns({**reads, **counting, "write: one flush": Store.flush}, few, many, rounds, progress)
    purge = f"purge: a day's {bulk.A_DAY} experiments, {bulk.A_DAY * bulk.BLOCKS_EACH:,} blocks"
    found |= _in_turns({purge: Store.purge}, few, many, min(rounds, _PURGES), progress, warm=0)
    goals = {**dict.fromkeys(reads, READ_GOALS), **dict.fromkeys(counting, ())}
    return [_row(name, few, many, times, goals.get(name, WRITE_GOALS)) for name, times in found.items()]


def _list_rows(few: Store, many: Store, rounds: int, progress: Progress) -> list[Row]:
    """Lists alone, and what is written into them."""
    lists = {name: partial(Store.ask, ask=ask) for name, ask in _asks().items() if name.startswith("list: ")}
    found = _in_turns(lists, few, many, rounds, progress)
    found |= _in_turns({"write: one experiment": Store.create}, few, many, rounds, progress)
    sweep = {f"write: a sweep of {_MEMBERS:,}": Store.create_sweep, "delete: the same": Store.delete_sweep}
    found |= _in_turns(sweep, few, many, min(rounds, _SWEEPS), progress, warm=1)
    return [_row(name, few, many, times, READ_GOALS if name in lists else ()) for name, times in found.items()]


def _names_row(store: Store) -> Row:
    with store.database.read() as connection:
        number = connection.execute(select(func.count()).select_from(name_parts)).scalar_one()
        experiments = connection.execute(select(func.count()).select_from(table)).scalar_one()
        size = bulk.table_bytes(connection, name_parts.name)
    each: dict[str, Figure] = {"parts": number / experiments, "bytes": size / experiments if size else None}
    return Row(f"an experiment of {experiments:,}", each)


def _in_turns(
    subjects: Mapping[str, Callable[[Store], Timed]],
    few: Store,
    many: Store,
    rounds: int,
    progress: Progress,
    *,
    warm: int = _WARM_ROUNDS,
) -> dict[str, tuple[Times, Times]]:
    task = progress.add_task("rounds measured", total=rounds + warm)
    found: dict[str, tuple[list[Timed], list[Timed]]] = {name: ([], []) for name in subjects}
    for number in range(rounds + warm):
        for name, subject in subjects.items():
            order = ((0, few), (1, many)) if number % 2 else ((1, many), (0, few))
            for place, store in order:
                timed = subject(store)
                if number >= warm:
                    found[name][place].append(timed)
        progress.advance(task)
    return {name: (Times(few_times), Times(many_times)) for name, (few_times, many_times) in found.items()}


def _row(name: str, few: Store, many: Store, times: tuple[Times, Times], goals: Sequence[Goal]) -> Row:
    highs = [float(np.percentile([timed.wall for timed in one.rounds], 99)) for one in times]
    figures: dict[str, Figure] = {
        f"median, {few.size:,}": times[0].wall * 1e3,
        f"median, {many.size:,}": times[1].wall * 1e3,
        RATIO: times[1].over(times[0]),
        f"p99, {few.size:,}": highs[0] * 1e3,
        f"p99, {many.size:,}": highs[1] * 1e3,
        HIGH_RATIO: highs[1] / highs[0],
    }
    return Row(name, figures, goals)


def _large_purge(store: Store, experiments: int) -> Row:
    seconds = store.purge(experiments // bulk.A_DAY).wall
    blocks = experiments * bulk.BLOCKS_EACH
    figures: dict[str, Figure] = {
        "s": seconds,
        "blocks/s": blocks / seconds,
        "ms an experiment": seconds * 1e3 / experiments,
    }
    if not store.database.is_sqlite:
        figures["s to vacuum"] = once(lambda: bulk.settle(store.database.url))
    return Row(f"{experiments:,} experiments, {blocks:,} of {store.size:,} blocks", figures)


def _asks() -> dict[str, Ask]:
    """Each kind of request; what they answer is as long whatever the size of the store."""

    def of_one(path: str = "", **query: Any) -> Ask:
        return lambda chance, identifiers: (f"/experiments/{chance.choice(identifiers)}{path}", query)

    def listing(**query: Any) -> Ask:
        return lambda _chance, _identifiers: ("/experiments", {"limit": _PAGE, **query})

    def tagged(key: str, of: Callable[[int], int], prefix: str, **query: Any) -> Ask:
        def ask(chance: random.Random, identifiers: Sequence[str]) -> Request:
            tag = f"{key}:{prefix}-{chance.randrange(of(len(identifiers)))}"
            return "/experiments", {"limit": _PAGE, "tag": tag, **query}

        return ask

    def deep(chance: random.Random, identifiers: Sequence[str]) -> Request:
        place = Position(chance.choice(identifiers[_PAGE:]))
        return "/experiments", {"limit": _PAGE, "cursor": encode_cursor(place, Filters())}

    def by_accuracy(chance: random.Random, identifiers: Sequence[str]) -> Request:
        sort: Sort = "-accuracy"
        place = Position(chance.choice(identifiers), 0.3 + 0.7 * chance.random())
        return "/experiments", {"limit": _PAGE, "sort": sort, "cursor": encode_cursor(place, Filters(), sort)}

    def named(**query: Any) -> Ask:
        return lambda chance, identifiers: (
            "/experiments",
            {"limit": _PAGE, "name": chance.choice(identifiers)[-6:], **query},
        )

    def course(_count: int) -> int:
        return bulk.COURSES

    def group(count: int) -> int:
        return count // bulk.OF_A_GROUP

    return {
        "gradients, all points": of_one("/gradients"),
        "gradients, sampled": of_one("/gradients", max_points=bulk.STEPS),
        "histograms": of_one("/gradients/histograms"),
        "metrics": of_one("/metrics"),
        "one experiment": of_one(),
        "list: first page": listing(),
        "list: a page deep in": deep,
        "list: status, of most": listing(status="succeeded"),
        "list: status, of an eighth": listing(status="failed"),
        "list: status that none has": listing(status="queued"),
        "list: verdict": listing(verdict=bulk.VERDICTS[0]),
        "list: tag, of a quarter": tagged("course", course, "dl"),
        "list: tag, of 50": tagged("group", group, "group"),
        "list: tag and status": tagged("course", course, "dl", status="succeeded"),
        "list: name, a quarter has it": listing(name=bulk.ACTIVATIONS[0].upper()),
        "list: name, every one has it": listing(name="depth"),
        "list: name, one has it": named(),
        "list: name, one has it, by accuracy": named(sort="-accuracy"),
        "list: name, none has it": listing(name="no such name"),
        "list: sorted by name": listing(sort="name"),
        "list: sorted by accuracy, deep in": by_accuracy,
    }


def _chunk(start: int) -> Chunk:
    """What a worker's loop would hand on."""
    steps = np.arange(start, start + bulk.STEPS, dtype=np.int64)
    values = np.random.default_rng(start).lognormal(-5.0, 2.0, (8, bulk.LAYERS, bulk.STEPS)).astype(np.float32)
    measured: dict[Tensor, StatisticsBlock] = {
        tensor: StatisticsBlock(steps, values[: len(statistics.names(tensor))]) for tensor in bulk.MEASURED
    }
    metrics = StatisticsBlock(steps, values[: len(statistics.names("metrics")), :1])
    none = StatisticsBlock(np.empty(0, np.int64), np.empty((len(statistics.names("evaluation")), 1, 0), np.float32))
    return Chunk(int(steps[-1]) + 1, Measured(steps, measured, {}, values[0, 0]), metrics, none)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("--blocks", type=int, help=f"so many instead of {MANY:,}, held against {FEW:,}")
    parser.add_argument("--database", choices=[*DATABASES, "both"], default="both")
    parser.add_argument("--lists", action="store_true", help="experiments without blocks, and lists alone")
    parser.add_argument("--quick", action="store_true", help="small and few: shows that it runs, measures nothing")
    given = parser.parse_args(arguments)
    databases = list(DATABASES) if given.database == "both" else [given.database]
    perform(partial(run, blocks=given.blocks, databases=databases, lists_alone=given.lists), given.quick)


if __name__ == "__main__":
    main()
