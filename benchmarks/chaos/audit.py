"""After the faults: did every experiment that was accepted end once, with the series of an undisturbed run?"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from benchmarks.chaos.series import Series, read_series
from gradprobe.settings import Settings
from gradprobe.spec import Spec
from gradprobe.stacking import stack_key
from gradprobe.state import Status
from gradprobe.store import experiments, migrate
from gradprobe.store.database import Database
from gradprobe.store.tables import blocks, checkpoints
from gradprobe.store.tables import experiments as table
from worker.execute import execute, warm_up


@dataclass(frozen=True)
class Reference:
    """What a spec comes to when nothing goes wrong; a result's times are left out. In a stack it rounds differently."""

    series: Series
    result: dict[str, Any]
    stacked: "Reference | None" = None


@dataclass
class Findings:
    """What was wrong, by kind; all empty is what is promised."""

    #: Accepted, and not there any more, or not ended, or ended otherwise than succeeded.
    lost: list[str] = field(default_factory=list)
    #: Accepted once and stored twice.
    doubled: list[str] = field(default_factory=list)
    #: Steps missing, or there twice.
    gaps: list[str] = field(default_factory=list)
    #: Not bit for bit an undisturbed run's.
    differences: list[str] = field(default_factory=list)
    #: Kept without an experiment that needs it.
    leftovers: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(len(found) for found in asdict(self).values())


def references(
    directory: Path, documents: dict[str, dict[str, Any]], settings: Settings, tell: Callable[[], None] = lambda: None
) -> dict[str, Reference]:
    """Run each of these, in this process, on a database of its own: by itself, and beside another where it can."""
    alone = Settings(data_directory=directory, threads=settings.threads)
    migrate.upgrade(alone.database)
    database = Database(alone.database)
    warm_up()
    found = {}
    try:
        for name, document in documents.items():
            spec = Spec.model_validate(document)
            beside = _undisturbed(database, alone, spec, name, 2) if stack_key(spec) is not None else None
            found[name] = replace(_undisturbed(database, alone, spec, name, 1), stacked=beside)
            tell()
    finally:
        database.close()
    return found


def _undisturbed(database: Database, settings: Settings, spec: Spec, name: str, copies: int) -> Reference:
    """One of so many that wait at once."""
    with database.write() as connection:
        identifiers = [experiments.create(connection, spec, 1).id for _ in range(copies)]
    if execute(identifiers[0], settings, database) != Status.SUCCEEDED:
        raise RuntimeError(f"the undisturbed run of {name} did not succeed")
    with database.read() as connection:
        record = experiments.get(connection, identifiers[0])
    return Reference(read_series(database, record.id), _untimed(record.result))


def audit(database: Database, accepted: dict[str, str], expected: dict[str, Reference]) -> Findings:
    """Look at everything that was stored.

    Args:
        accepted: the spec's name under each name that an experiment was posted with.
        expected: what each spec comes to.
    """
    findings = Findings()
    with database.read() as connection:
        rows = connection.execute(select(table.c.name, table.c.id, table.c.status, table.c.error)).all()
        findings.leftovers += [f"checkpoint of {one}" for one in connection.execute(_left_checkpoints()).scalars()]
        findings.leftovers += [f"blocks of {one}" for one in connection.execute(_left_blocks()).scalars()]
    stored = [row.name for row in rows]
    findings.lost += [f"{name}: not stored" for name in accepted if name not in stored]
    findings.doubled += [name for name in accepted if stored.count(name) > 1]
    for row in rows:
        if row.status != Status.SUCCEEDED:
            findings.lost.append(f"{row.name} ({row.id}): {row.status} {row.error or ''}")
        elif row.name in accepted:
            _compare(database, row.id, f"{row.name} ({row.id})", expected[accepted[row.name]], findings)
    return findings


def _compare(database: Database, identifier: str, name: str, expected: Reference, findings: Findings) -> None:
    series = read_series(database, identifier)
    with database.read() as connection:
        record = experiments.get(connection, identifier)
    if expected.stacked is not None and (record.provenance or {}).get("stacked") is not None:
        expected = expected.stacked
    every = record.spec["recording"]["every"]
    findings.gaps += [f"{name}: {fault}" for fault in series.faults(record.iterations, every)]
    findings.differences += [f"{name}: {difference}" for difference in series.differences(expected.series)]
    if _untimed(record.result) != expected.result:
        findings.differences.append(f"{name}: {_untimed(record.result)}, not {expected.result}")


def _untimed(result: dict[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (result or {}).items() if "second" not in key}


def _left_checkpoints() -> Any:
    ended = select(table.c.id).where(table.c.status.in_([Status.SUCCEEDED, Status.FAILED, Status.CANCELLED]))
    return select(checkpoints.c.experiment_id).where(checkpoints.c.experiment_id.in_(ended))


def _left_blocks() -> Any:
    return select(blocks.c.experiment_id).where(blocks.c.experiment_id.not_in(select(table.c.id))).distinct()


def attempts(database: Database) -> int:
    """How many attempts all experiments together took."""
    with database.read() as connection:
        return int(connection.scalar(select(func.sum(table.c.attempt))) or 0)


def unended(database: Database, names: Iterable[str]) -> int:
    """How many of these have not ended."""
    ended = select(func.count()).where(table.c.name.in_(list(names)), table.c.finished_at.is_not(None))
    with database.read() as connection:
        return len(list(names)) - int(connection.scalar(ended) or 0)
