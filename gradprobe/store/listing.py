"""Which experiments a list holds, and in what order: chosen in indexes, from where a page ended on.

An order is by one column and, among equals, by id, which is the order of creation; what has no value comes last either
way. So a page is a run of one index, and where it ends is a value and an id, whatever comes and goes meanwhile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, get_args

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, false, func, or_, select
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import CompoundSelect

from gradprobe.state import ACTIVE, Status
from gradprobe.store import names
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


def page(connection: Connection, filters: Filters, sort: Sort, after: Position | None, limit: int) -> list[Position]:
    """Up to `limit` of those that follow `after`, in order. Only indexes are read, not the rows, which are wide."""
    if filters.hold_nul:
        return []
    order = _Order(experiments.c.id, _COLUMNS[sort.removeprefix("-")], sort.startswith("-"), "accuracy" in sort)
    query, order = _chosen(connection, filters, order)
    if "created" in sort:
        return _unvalued(connection, query, order, [order.id], after, limit)
    found: list[Position] = []
    if after is None or after.value is not None:
        found = _valued(connection, query, order, after, limit)
        after = None
    if len(found) < limit:
        # By itself: the two databases differ in where they put what is null, and neither keeps to an index across it.
        columns = [order.id] if order.is_accuracy else [order.column, order.id]
        found += _unvalued(connection, query.where(order.nothing), order, columns, after, limit - len(found))
    return found


@dataclass(frozen=True, slots=True)
class _Order:
    """What a query's rows are ordered by, and among equals by id."""

    id: ColumnElement[str]
    column: ColumnElement[Any]
    descending: bool
    is_accuracy: bool

    @property
    def nothing(self) -> ColumnElement[bool]:
        return self.column == -1 if self.is_accuracy else self.column.is_(None)

    @property
    def something(self) -> ColumnElement[bool]:
        return self.column >= 0 if self.is_accuracy else self.column.is_not(None)

    def directed(self, columns: Sequence[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
        return [column.desc() for column in columns] if self.descending else list(columns)

    def beyond(self, after: Position) -> ColumnElement[bool]:
        """After this value, or with it and after this id; the first condition alone is what an index begins at."""
        if self.descending:
            return and_(self.column <= after.value, or_(self.column < after.value, self.id < after.id))
        return and_(self.column >= after.value, or_(self.column > after.value, self.id > after.id))


def _chosen(connection: Connection, filters: Filters, order: _Order) -> tuple[Select[Any], _Order]:
    """All that pass, and what they are ordered by, to be read as far as a page needs."""
    few = names.few(connection, names.folded(filters.name)) if filters.name is not None else None
    in_sqlite = connection.dialect.name == "sqlite"
    if few is not None:
        query = _looked_up(few, filters, order)
        if in_sqlite and order.column is experiments.c.id:
            return query, order  # one after another is looked up
        # Finished, and then ordered: without the offset either database may walk along the order to look for the few.
        found = query.offset(0).subquery()
        return select(found), replace(order, id=found.c.id, column=found.c.value)
    if order.column is not experiments.c.id:
        return _narrowed(select(experiments.c.id, order.column.label("value")), filters, beside), order
    if filters.tags and in_sqlite:
        query, column = _tagged(connection, filters)
        return query, replace(order, id=column, column=column)
    return _narrowed(select(experiments.c.id), filters), order


def _valued(
    connection: Connection, query: Select[Any], order: _Order, after: Position | None, limit: int
) -> list[Position]:
    query = query.where(order.something)
    if after is not None:
        query = query.where(order.beyond(after))
    rows = connection.execute(query.order_by(*order.directed([order.column, order.id])).limit(limit))
    return [Position(row.id, row.value) for row in rows]


def _unvalued(
    connection: Connection,
    query: Select[Any],
    order: _Order,
    columns: Sequence[ColumnElement[Any]],
    after: Position | None,
    limit: int,
) -> list[Position]:
    if after is not None:
        query = query.where(order.id < after.id if order.descending else order.id > after.id)
    return [Position(one) for one in connection.scalars(query.order_by(*order.directed(columns)).limit(limit))]


def _looked_up(few: CompoundSelect[Any], filters: Filters, order: _Order) -> Select[Any]:
    """Those of a few that pass, and what they are ordered by; each is looked up."""
    query = select(experiments.c.id, order.column.label("value")).where(experiments.c.id.in_(few))
    for key, value in filters.tags.items():
        query = query.where(_has_tag(experiments.c.id, key, value))
    return _narrowed(query, replace(filters, tags={}), beside, named=True)


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
        found = found.where(_has_tag(column, key, value))
    return _narrowed(found, replace(filters, tags={})), column


def _has_tag(identifier: ColumnElement[str], key: str, value: str) -> ColumnElement[bool]:
    other = tags.alias()
    return exists().where(other.c.experiment_id == identifier, other.c.key == key, other.c.value == value)


def _size(connection: Connection, key: str, value: str) -> int:
    """How many have a tag, counted as far as `_MANY`."""
    some = select(tags.c.experiment_id).where(tags.c.key == key, tags.c.value == value).limit(_MANY).subquery()
    return connection.scalar(select(func.count()).select_from(some)) or 0


def _narrowed(
    query: Select[Any], filters: Filters, look: type[FunctionElement[Any]] | None = None, *, named: bool = False
) -> Select[Any]:
    """`look`: how filters that many may pass are asked of an order that an index has already.

    `named`: that most have the part of a name which is asked for, since they were looked up by it.
    """
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
        has_part = experiments.c.folded_name.contains(names.folded(filters.name), autoescape=True)
        # By itself PostgreSQL takes a part of a name for a rare one, and goes through all to sort what it finds.
        query = query.where(has_part if named else func.coalesce(has_part, false()))
    for key, value in filters.tags.items():
        tagged = select(tags.c.experiment_id).where(tags.c.key == key, tags.c.value == value)
        query = query.where((look(experiments.c.id) if look else experiments.c.id).in_(tagged))
    return query
