"""What was counted of rows that are there no longer, or that have changed back: so that totals only grow."""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from gradprobe.state import Status
from gradprobe.store import names, objects
from gradprobe.store.tables import experiments, one_of, tallies

ATTEMPTS: Final = "attempts"
EXPIRED_LEASES: Final = "expired_leases"

_INSERT: Final[dict[str, Callable[..., Any]]] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


def add(connection: Connection, amounts: Counter[str]) -> None:
    """Add to what was counted before. Once a transaction: two that add in another order would wait for each other."""
    for name, amount in sorted(amounts.items()):
        insert = _INSERT[connection.dialect.name](tallies).values(name=name, value=amount)
        grown = {"value": tallies.c.value + insert.excluded.value}
        connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=grown))


def delete_experiments(connection: Connection, *conditions: ColumnElement[bool]) -> int:
    """Delete what they all hold of, with all it measured, and count it; how many there were.

    What was moved to the object store is condemned: whoever has that store removes it.
    """
    these = one_of(connection, experiments.c.id, names.forget(connection, *conditions))
    columns = (experiments.c.id, experiments.c.status, experiments.c.attempt)
    rows = connection.execute(delete(experiments).where(these).returning(*columns)).all()
    objects.condemn(connection, [row.id for row in rows])
    amounts: Counter[str] = Counter()
    for _, status, attempt in rows:
        amounts += Counter({status: int(Status(status).ended), ATTEMPTS: attempt})
    add(connection, amounts)
    return len(rows)


def read(connection: Connection) -> Counter[str]:
    """By name, all that was counted: ended states, `ATTEMPTS` and `EXPIRED_LEASES`."""
    return Counter({row.name: row.value for row in connection.execute(select(tallies))})
