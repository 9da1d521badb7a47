"""A part of a name is looked up, where few have it, and not looked for in every name.

Of each name sixteen characters from every second place on are kept in order: of `tanh run 7` it is `tanh run 7`,
`nh run 7`, ` run 7`, `un 7` and ` 7`. Wherever in a name a text is, it is at the start of one of them, or it is so
without its first character. Fewer than sixteen at the end of a name; what is kept twice is kept once.

A release that knows nothing of this writes names all the same. Those are told by `searched_name`, which it doesn't
write, are few, are found among the others, and are made up for by `mend`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    JSON,
    ColumnElement,
    Connection,
    Executable,
    Select,
    Text,
    any_,
    bindparam,
    delete,
    func,
    insert,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.sql.selectable import CompoundSelect

from gradprobe.store.tables import NAME_PART, experiments, name_parts, one_of, unsearched

_STRIDE: Final = 2
#: Of more it takes longer to look each of them up than to come upon a page of them.
_FEW: Final = 1000
#: A text with this behind it comes after all parts that begin with the text, and before all others that come after it.
_BEYOND: Final = NAME_PART * "\U0010ffff"


def folded(name: str) -> str:
    """A name as it is searched and sorted. Python's folding, because SQLite's own knows ASCII alone."""
    return name.casefold()


def columns(name: str | None) -> dict[str, str | None]:
    """An experiment's name in all its columns."""
    as_searched = None if name is None else folded(name)
    return {"name": name, "folded_name": as_searched, "searched_name": as_searched}


def write(connection: Connection, identifiers: Sequence[str]) -> None:
    """Keep the parts of the names of these experiments, of which none is kept yet."""
    _perform(connection, _WRITE, identifiers)


def forget(connection: Connection, *conditions: ColumnElement[bool]) -> list[str]:
    """Take away the parts that are kept of these experiments' names; their ids.

    Until the transaction ends nobody else changes them.
    """
    found = list(connection.scalars(select(experiments.c.id).where(*conditions).with_for_update()))
    if found:
        _perform(connection, _FORGET, found)
    return found


def mend(connection: Connection, limit: int) -> int:
    """Make up for up to `limit` names that a service of an older release wrote; how many there were."""
    some = select(experiments.c.id).where(unsearched).order_by(experiments.c.id).limit(limit)
    found = connection.scalars(some.with_for_update(skip_locked=True)).all()
    if found:
        these = one_of(connection, experiments.c.id, found)
        _perform(connection, _FORGET, found)
        connection.execute(update(experiments).where(these).values(searched_name=experiments.c.folded_name))
        _perform(connection, _WRITE, found)
    return len(found)


def few(connection: Connection, text: str) -> CompoundSelect[Any] | None:
    """A query of ids, among which are those of all whose name has this folded text; None: of more than a thousand.

    It is for this transaction.
    """
    for start in _starts(len(text)):
        starts = [text[start + offset :][:NAME_PART] for offset in range(_STRIDE)]
        ends = [one + _BEYOND for one in starts]
        values = dict(zip(_NAMES, [*starts, *ends], strict=True))
        if connection.execute(_COUNT, values).scalar_one() <= _FEW:
            return _between(starts, ends)
    return None


def _starts(length: int) -> list[int]:
    """Where in a text so long to begin: of a long one its end says most, of a short one the beginning has all."""
    if length < _STRIDE:
        return []
    last = max(0, length - NAME_PART - _STRIDE + 1)
    return list(dict.fromkeys((last, 0, last // 2)))


def _between(starts: Sequence[Any], ends: Sequence[Any]) -> CompoundSelect[Any]:
    """The experiments of these parts, as ranges, which both databases look up, and those not yet among them."""
    part, identifier = name_parts.c.part, name_parts.c.experiment_id.label("id")
    found = (select(identifier).where(part >= start, part < end) for start, end in zip(starts, ends, strict=True))
    return union_all(*found, select(experiments.c.id).where(unsearched))


#: The start of each range, and then the end of each.
_NAMES: Final = [f"{what}_{offset}" for what in ("start", "end") for offset in range(_STRIDE)]
_VALUES: Final = [bindparam(name, type_=Text) for name in _NAMES]
#: Counted as far as it matters. Made once: that takes longer than to count.
_COUNT: Final = select(func.count()).select_from(
    _between(_VALUES[:_STRIDE], _VALUES[_STRIDE:]).limit(_FEW + 1).subquery()
)


def _parts(these: ColumnElement[bool]) -> Select[Any]:
    """What is kept of the names of these experiments, in the order in which it is kept."""
    name = experiments.c.searched_name
    rests = select(experiments.c.id, name.label("rest")).where(these, name != "").cte("rests", recursive=True)
    shorter = select(rests.c.id, func.substr(rests.c.rest, _STRIDE + 1)).where(func.length(rests.c.rest) > _STRIDE)
    rests = rests.union_all(shorter)
    found = select(func.substr(rests.c.rest, 1, NAME_PART).label("part"), rests.c.id).subquery()
    return select(found.c.part, found.c.id).group_by(found.c.part, found.c.id).order_by(found.c.part, found.c.id)


#: These experiments, as one value whatever their number.
_THESE: Final[dict[str, ColumnElement[bool]]] = {
    "sqlite": experiments.c.id.in_(select(func.json_each(bindparam("ids", type_=JSON)).table_valued("value").c.value)),
    "postgresql": experiments.c.id == any_(bindparam("ids", type_=ARRAY(Text))),
}
_KEPT: Final = tuple_(name_parts.c.part, name_parts.c.experiment_id)
_WRITE: Final[dict[str, Executable]] = {
    dialect: insert(name_parts).from_select(["part", "experiment_id"], _parts(these))
    for dialect, these in _THESE.items()
}
_FORGET: Final[dict[str, Executable]] = {
    dialect: delete(name_parts).where(_KEPT.in_(_parts(these))) for dialect, these in _THESE.items()
}


def _perform(connection: Connection, statements: Mapping[str, Executable], identifiers: Sequence[str]) -> None:
    connection.execute(statements[connection.dialect.name], {"ids": list(identifiers)})
