"""The tables. Times are seconds since 1970 in UTC, taken from the database's own clock."""

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    any_,
    literal,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)

experiments = Table(
    "experiments",
    metadata,
    Column("id", String(30), primary_key=True),
    Column("schema_version", Integer, nullable=False),
    Column("row_version", Integer, nullable=False),
    Column("name", Text),
    Column("notes", Text),
    Column("spec", Text, nullable=False),
    Column("layers", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("verdict", String(32)),
    Column("iteration", Integer, nullable=False),
    Column("iterations", Integer, nullable=False),
    Column("queue", String(16), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("maximum_attempts", Integer, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", Double),
    Column("message_sent_at", Double),
    Column("cancel_requested_at", Double),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("result", Text),
    Column("error", Text),
    Column("provenance", Text),
    Column("request_id", Text),
    #: The name as it is searched, whatever the letters' case.
    Column("folded_name", Text),
    #: The name whose parts are in `name_parts`: the same, but where a service of an older release has written it.
    Column("searched_name", Text),
    # Null: of somebody on a server that asked for no key.
    Column("owner", String(64)),
    # The group it belongs to, its place in it as JSON, and what its diagnosis came to.
    Column("sweep_id", String(30)),
    Column("member", Text),
    Column("summary", Text),
    # The span of the request that submitted it, as W3C's header has it; null where nothing is traced.
    Column("traceparent", String(64)),
    # Null: trained by a worker. `watched`: a loop of somebody's that reports; no worker ever claims it.
    Column("source", String(16)),
    # The same for those that can train side by side; null: by itself. See `gradprobe.stacking`.
    Column("stack_key", String(32)),
    # The object that has the bytes of its blocks; null: they are here; empty: it was looked at and has none.
    Column("object", String(64)),
    Index(None, "owner", "id"),
    Index(None, "owner", "status"),
    Index(None, "sweep_id", "id"),
    #: Each order of a list, with all that filters look at beside it: a row is twenty times as wide.
    Index(None, "id", "folded_name", "status", "verdict", "owner", "sweep_id"),
    Index(None, "folded_name", "id", "status", "verdict", "owner", "sweep_id"),
    Index(None, "status", "id", "verdict", "owner", "sweep_id", "folded_name"),
    Index(None, "verdict", "id", "status", "owner", "sweep_id", "folded_name"),
    #: Added up by whoever watches; a row is a hundred times as wide.
    Index(None, "attempt"),
    Index(None, "stack_key", "status", "id"),
    #: What is old enough to be deleted, the oldest first.
    Index(None, "finished_at", "id", "status"),
    #: What has ended and is not in the object store yet, the oldest first.
    Index(None, "object", "finished_at", "id", "status"),
)


#: What `searched_name` is behind; nearly always nothing, and so is the index.
unsearched = experiments.c.folded_name.is_distinct_from(experiments.c.searched_name)
Index("ix_experiments_unsearched", experiments.c.id, sqlite_where=unsearched, postgresql_where=unsearched)


class test_accuracy(FunctionElement[float]):  # noqa: N801 - reads as a function of SQL
    """The share of the test set that a `result` tells of, −1 where it tells none; an index has every row's.

    Not null: of an expression SQLite and PostgreSQL agree on the order of what equals a value, and not of what is null.
    """

    type = Double()
    inherit_cache = True


@compiles(test_accuracy, "sqlite")
def _test_accuracy_sqlite(element: test_accuracy, compiler: SQLCompiler, **options: Any) -> str:
    return f"coalesce(json_extract({compiler.process(element.clauses, **options)}, '$.test_accuracy'), -1)"


@compiles(test_accuracy, "postgresql")
def _test_accuracy_postgresql(element: test_accuracy, compiler: SQLCompiler, **options: Any) -> str:
    # In PostgreSQL's own words, which migrations are compared with.
    told = f"({compiler.process(element.clauses, **options)}::json ->> 'test_accuracy'::text)::double precision"
    return f"COALESCE({told}, '-1'::double precision)"


Index(
    "ix_experiments_test_accuracy",
    test_accuracy(experiments.c.result),
    *(experiments.c[name] for name in ("id", "status", "verdict", "owner", "sweep_id", "folded_name")),
)


class beside(FunctionElement[Any]):  # noqa: N801 - reads as a function of SQL
    """A column that is looked at beside the order of a list, and by which SQLite does not look for another index.

    Without statistics it takes an index by any value for one of few rows, reads those, and sorts them; that goes wrong
    where the value is a common one. PostgreSQL counts, and is left to choose.
    """

    inherit_cache = True


@compiles(beside, "sqlite")
def _beside_sqlite(element: beside, compiler: SQLCompiler, **options: Any) -> str:
    return f"+{compiler.process(element.clauses, **options)}"


@compiles(beside, "postgresql")
def _beside_postgresql(element: beside, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


def one_of(connection: Connection, column: ColumnElement[str], values: Collection[str]) -> ColumnElement[bool]:
    """Whether a text is among these, however many.

    PostgreSQL's driver takes longer for `IN` with five hundred parameters than the server for its rows; SQLite, given
    one parameter instead, reads the whole table.
    """
    if connection.dialect.name == "postgresql":
        return column == any_(literal(list(values), ARRAY(Text)))
    return column.in_(values)


#: Groups of experiments: `kind` is `sweep` or `remedies`. `stage` is 0 where nothing will be added to it any more.
#: `experiment_id`: what the remedies are of; no foreign key, since what was tried outlives it.
sweeps = Table(
    "sweeps",
    metadata,
    Column("id", String(30), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("name", Text),
    Column("tags", Text, nullable=False),
    Column("base", Text, nullable=False),
    Column("definition", Text, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("experiment_id", String(30)),
    Column("created_at", Double, nullable=False),
    Column("request_id", Text),
    Column("owner", String(64)),
    Index(None, "kind", "id"),
    Index(None, "experiment_id"),
    Index(None, "stage"),
)

tags = Table(
    "experiment_tags",
    metadata,
    Column("experiment_id", String(30), ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
    Index(None, "key", "value", "experiment_id"),
)

#: Characters of a name that are kept together, at most.
NAME_PART: Final = 16

#: Names as they are looked up: see `names.py`. Compared by the characters' numbers, whatever the server's language. No
#: foreign key: to look up by experiment what is to go with it would be a second index, as large as all of it.
name_parts = Table(
    "name_parts",
    metadata,
    Column("part", String(NAME_PART).with_variant(String(NAME_PART, collation="C"), "postgresql"), primary_key=True),
    Column("experiment_id", String(30), primary_key=True),
    sqlite_with_rowid=False,
)

#: One row a run of steps. `level` 0 is as measured; coarser levels are for reading at a distance.
blocks = Table(
    "blocks",
    metadata,
    Column("experiment_id", String(30), ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True),
    Column("tensor", String(32), primary_key=True),
    Column("level", Integer, primary_key=True),
    Column("first_step", Integer, primary_key=True),
    Column("last_step", Integer, nullable=False),
    Column("statistics", LargeBinary),
    Column("counts", LargeBinary),
    # Of what was moved: where it lies in the experiment's object, how long it is, and its CRC-32.
    *(
        Column(f"{name}_{what}", BigInteger)
        for name in ("statistics", "counts")
        for what in ("start", "length", "checksum")
    ),
)

#: Every object that was ever begun, until it is removed; see `objects.py`. No foreign key: it outlives the experiment.
#: `condemned_at`: when it may be removed; null: its experiment's row names it.
objects = Table(
    "objects",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("experiment_id", String(30), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("condemned_at", Double),
    Index(None, "experiment_id"),
    Index(None, "condemned_at"),
)

#: Counted of what is there no longer: see `tallies.py`.
tallies = Table(
    "tallies",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(30), primary_key=True),
    Column("prefix", String(16), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("scopes", String(64), nullable=False),
    Column("note", Text),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("last_used_at", Double),
    Column("revoked_at", Double),
    Index(None, "prefix"),
)

#: The requests that made something, by the key their client gave them. No foreign key: what was made and then deleted
#: must not be made again by a late repetition. `owner` is empty, and not null, where no key was asked for.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("owner", String(64), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("request", String(64), nullable=False),
    Column("resource_id", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Index(None, "created_at"),
)

#: The newest checkpoint of an experiment that has not ended: what its next attempt begins with.
checkpoints = Table(
    "checkpoints",
    metadata,
    Column("experiment_id", String(30), ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True),
    Column("iteration", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("saved_at", Double, nullable=False),
    Column("checksum", BigInteger, nullable=False),
    Column("state", LargeBinary, nullable=False),
)


class now(FunctionElement[float]):  # noqa: N801 - reads as SQL's now()
    """The database's clock, seconds since 1970; on PostgreSQL the moment of the statement, not of the transaction."""

    type = Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_sqlite(element: now, compiler: SQLCompiler, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_postgresql(element: now, compiler: SQLCompiler, **options: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS double precision)"
