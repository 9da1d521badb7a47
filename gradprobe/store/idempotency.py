"""Requests that are sent again: the key that their client gave them, kept in the transaction that made something."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, and_, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from gradprobe.errors import IdempotencyKeyReused
from gradprobe.store.tables import idempotency_keys, now

_INSERT: Final[dict[str, Callable[..., Any]]] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


@dataclass(frozen=True, slots=True)
class Repetition:
    """A request that may be sent again.

    Attributes:
        owner: whose it is; one's keys say nothing of another's.
        key: as the client gave it.
        request: what distinguishes the request from others, a digest of operation and body.
        seconds: for how long the key is remembered.
    """

    owner: str | None
    key: str
    request: str
    seconds: float


def remember(connection: Connection, repetition: Repetition, resource_id: str) -> str | None:
    """Note that this request is about to make the resource; the one that it made before, if it was here before.

    Of several at once, all but one wait here until that one's transaction has ended.

    Raises:
        IdempotencyKeyReused: the key came with another request.
    """
    owner = repetition.owner or ""
    this = and_(idempotency_keys.c.owner == owner, idempotency_keys.c.key == repetition.key)
    forgotten = idempotency_keys.c.created_at < now() - repetition.seconds
    connection.execute(delete(idempotency_keys).where(this, forgotten))
    values = {"owner": owner, "key": repetition.key, "request": repetition.request, "resource_id": resource_id}
    insert = _INSERT[connection.dialect.name](idempotency_keys).values(**values, created_at=now())
    if connection.execute(insert.on_conflict_do_nothing().returning(idempotency_keys.c.key)).first() is not None:
        return None
    known = connection.execute(select(idempotency_keys).where(this)).one()
    if known.request != repetition.request:
        raise IdempotencyKeyReused
    return str(known.resource_id)
