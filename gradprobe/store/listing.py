"""Which experiments a list holds, and in what order: chosen in indexes, from where a page ended on.

An order is by one column and, among equals, by id, which is the order of creation; what has no value comes last either
way. So a page is a run of one index, and where it ends is a value and an id, whatever comes and goes meanwhile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, get_args

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, or_, select
from sqlalchemy.sql.functions import FunctionElement

from gradprobe.state import ACTIVE, Status
from gradprobe.store.tables import beside, experiments, tags, test_accuracy

#: As a client names it: descending with a minus.
Sort = Literal[
    "-created", "created", "name", "-name", "status", "-status", "verdict", "-verdict", "accuracy", "-accuracy"
]
SORTS: Final[tuple[Sort, ...]] = get_args(Sort)
NEWEST: Final[Sort] = "-created"

#: Of so many and more that have a tag it does not matter how many there are.
_MANY: Final = 2000

_ACCURACY: Final = test_accuracy(experiments.c.result)
_COLUMNS: Final[dict[str, ColumnElement[Any]]] = {
    "created": experiments.c.id,
    "name": experiments.c.folded_name,
    "status": experiments.c.status,
    "verdict": experiments.c.verdict,
    "accuracy": _ACCURACY,
}


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list is narrowed to; every given one must hold."""

    status: Status | None = None
    name: str | None = None
    verdict: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    owner: str | None = None
    sweep: str | None = None

    @property
    def hold_nul(self) -> bool:
        """Whether a text in them has the character that no stored text has and that PostgreSQL refuses to hear of."""
        texts = [self.name, self.verdict, *self.tags.keys(), *self.tags.values()]
        return any("\0" in text for text in texts if text)


@dataclass(frozen=True, slots=True)
class Position:
    """The last one of a page: its id, and what it was sorted by; None where it had no value, or the id is the order."""

    id: str
    value: str | float | None = None


def folded(name: str | None) -> str | None:
    """A name as it is searched and sorted. Python's folding, because SQLite's own knows ASCII alone."""
    return None if name is None else name.casefold()


def page(connection: Connection, filters: Filters, sort: Sort, after: Position | None, limit: int) -> list[Position]:
    """Up to `limit` of those that follow `after`, in order. Only indexes are read, not the rows, which are wide."""
    if filters.hold_nul:
        return []
    column, descending = _COLUMNS[sort.removeprefix("-")], sort.startswith("-")
    if column is experiments.c.id:
        if filters.tags and connection.dialect.name == "sqlite":
            query, column = _tagged(connection, filters)
            return _unvalued(connection, query, [column], descending, after, limit)
        return _unvalued(connection, _narrowed(select(column), filters), [column], descending, after, limit)
    found: list[Position] = []
    if after is None or after.value is not None:
        query = _narrowed(select(experiments.c.id, column.label("value")), filters, beside)
        found = _valued(connection, query, column, descending, after, limit)
        after = None
    if len(found) < limit:
        # By itself: the two databases differ in where they put what is null, and neither keeps to an index across it.
        rest = _narrowed(select(experiments.c.id), filters, beside).where(_nothing(column))
        order = [experiments.c.id] if column is _ACCURACY else [column, experiments.c.id]
        found += _unvalued(connection, rest, order, descending, after, limit - len(found))
    return found


def _valued(
    connection: Connection,
    query: Select[Any],
    column: ColumnElement[Any],
    descending: bool,
    after: Position | None,
    limit: int,
) -> list[Position]:
    query = query.where(column >= 0 if column is _ACCURACY else column.is_not(None))
    if after is not None:
        query = query.where(_beyond(column, after, descending))
    rows = connection.execute(query.order_by(*_directed([column, experiments.c.id], descending)).limit(limit))
    return [Position(row.id, row.value) for row in rows]


def _unvalued(
    connection: Connection,
    query: Select[Any],
    order: Sequence[ColumnElement[Any]],
    descending: bool,
    after: Position | None,
    limit: int,
) -> list[Position]:
    if after is not None:
        query = query.where(order[-1] < after.id if descending else order[-1] > after.id)
    return [Position(one) for one in connection.scalars(query.order_by(*_directed(order, descending)).limit(limit))]


def _nothing(column: ColumnElement[Any]) -> ColumnElement[bool]:
    return column == -1 if column is _ACCURACY else column.is_(None)


def _directed(columns: Sequence[ColumnElement[Any]], descending: bool) -> list[ColumnElement[Any]]:
    return [column.desc() for column in columns] if descending else list(columns)


def _beyond(column: ColumnElement[Any], after: Position, descending: bool) -> ColumnElement[bool]:
    """After this value, or with it and after this id; the first condition alone is what an index begins at."""
    if descending:
        return and_(column <= after.value, or_(column < after.value, experiments.c.id < after.id))
    return and_(column >= after.value, or_(column > after.value, experiments.c.id > after.id))


def _tagged(connection: Connection, filters: Filters) -> tuple[Select[Any], ColumnElement[Any]]:
    """For SQLite: a query of ids in order of the column that is told with it.

    Asked for ids among those of a tag it first writes all of them down, however few a page holds. So a tag's own
    entries, which are in order of id, are walked as far as a page needs, unless another filter leaves few to look at.
    """
    found: Select[Any]
    column: ColumnElement[Any]
    left = list(filters.tags.items())
    if filters.status in ACTIVE or filters.sweep is not None:
        found, column = select(experiments.c.id), experiments.c.id
    else:
        if len(left) > 1:
            left.sort(key=lambda tag: _size(connection, *tag))
        (key, value), *left = left
        column = tags.c.experiment_id
        found = select(column).join(experiments, beside(column) == experiments.c.id)
        found = found.where(tags.c.key == key, tags.c.value == value)
    for key, value in left:
        other = tags.alias()
        found = found.where(exists().where(other.c.experiment_id == column, other.c.key == key, other.c.value == value))
    return _narrowed(found, replace(filters, tags={})), column


def _size(connection: Connection, key: str, value: str) -> int:
    """How many have a tag, counted as far as `_MANY`."""
    some = select(tags.c.experiment_id).where(tags.c.key == key, tags.c.value == value).limit(_MANY).subquery()
    return connection.scalar(select(func.count()).select_from(some)) or 0


def _narrowed(query: Select[Any], filters: Filters, look: type[FunctionElement[Any]] | None = None) -> Select[Any]:
    """`look`: how filters that many may pass are asked of an order that an index has already."""
    for column, value in (
        (experiments.c.owner, filters.owner),
        (experiments.c.status, filters.status),
        (experiments.c.verdict, filters.verdict),
    ):
        if value is not None:
            query = query.where((look(column) if look else column) == value)
    if filters.sweep is not None:
        query = query.where(experiments.c.sweep_id == filters.sweep)
    if filters.name is not None:
        query = query.where(experiments.c.folded_name.contains(folded(filters.name), autoescape=True))
    for key, value in filters.tags.items():
        tagged = select(tags.c.experiment_id).where(tags.c.key == key, tags.c.value == value)
        query = query.where((look(experiments.c.id) if look else experiments.c.id).in_(tagged))
    return query
