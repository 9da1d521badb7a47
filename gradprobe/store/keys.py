"""Access keys: made, listed, revoked, and looked up for a request. A key itself is never stored, only its digest."""

import hmac
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, and_, insert, or_, select, update

from gradprobe.access import Principal, Scope, digest, is_key, lookup_prefix, new_key
from gradprobe.errors import InvalidKey, KeyNotFound
from gradprobe.identifiers import new_key_id
from gradprobe.store.tables import keys, now

#: How exactly the last use is told; each telling is a write.
_LAST_USE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key. Times are seconds since 1970 by the database's clock."""

    id: str
    prefix: str
    owner: str
    scopes: tuple[Scope, ...]
    note: str | None
    created_at: float
    expires_at: float | None
    last_used_at: float | None
    revoked_at: float | None


def create(
    connection: Connection,
    owner: str,
    scopes: Collection[Scope],
    lifetime_seconds: float | None = None,
    note: str | None = None,
) -> tuple[Key, str]:
    """A new key for an owner, who may have several, and the key itself, which can't be read again afterwards."""
    secret = new_key()
    identifier = new_key_id()
    connection.execute(
        insert(keys).values(
            id=identifier,
            prefix=lookup_prefix(secret),
            digest=digest(secret),
            owner=owner,
            scopes=",".join(scope for scope in Scope if scope in scopes),
            note=note,
            created_at=now(),
            expires_at=None if lifetime_seconds is None else now() + lifetime_seconds,
        )
    )
    return _key(connection.execute(select(keys).where(keys.c.id == identifier)).one()), secret


def every(connection: Connection) -> list[Key]:
    """All keys, oldest first; those that were revoked or have expired too."""
    return [_key(row) for row in connection.execute(select(keys).order_by(keys.c.id))]


def revoke(connection: Connection, named: str) -> Key:
    """End a key, named by its id or by its prefix; one that was revoked before stays as it is.

    Raises:
        KeyNotFound: no key is named so, or several are.
    """
    found = connection.execute(select(keys).where(or_(keys.c.id == named, keys.c.prefix == named))).all()
    if len(found) != 1:
        raise KeyNotFound
    mine = keys.c.id == found[0].id
    connection.execute(update(keys).where(mine, keys.c.revoked_at.is_(None)).values(revoked_at=now()))
    return _key(connection.execute(select(keys).where(mine)).one())


def any_valid(connection: Connection) -> bool:
    """Whether there is a key that opens anything."""
    return connection.execute(select(keys.c.id).where(_valid()).limit(1)).first() is not None


def authenticate(connection: Connection, secret: str) -> tuple[Principal, str | None]:
    """On whose behalf the bearer of this key asks; and the key's id where its use should be noted.

    Raises:
        InvalidKey: it was never made here, was revoked or has expired. Which of them it is, only the bearer of a real
            key learns.
    """
    presented = digest(secret)
    rows: Sequence[Row[Any]] = ()
    if is_key(secret):
        columns = (keys, _valid().label("valid"), _use_is_news().label("news"))
        rows = connection.execute(select(*columns).where(keys.c.prefix == lookup_prefix(secret))).all()
    for row in rows:
        if hmac.compare_digest(row.digest, presented):
            if not row.valid:
                state = "was revoked" if row.revoked_at is not None else "has expired"
                raise InvalidKey(f"This key {state}; ask this server's operator for another.")
            principal = Principal(row.owner, frozenset(map(Scope, row.scopes.split(","))))
            return principal, row.id if row.news else None
    raise InvalidKey


def note_use(connection: Connection, identifier: str) -> None:
    """That a key was used just now."""
    connection.execute(update(keys).where(keys.c.id == identifier, _use_is_news()).values(last_used_at=now()))


def _valid() -> Any:
    return and_(keys.c.revoked_at.is_(None), or_(keys.c.expires_at.is_(None), keys.c.expires_at > now()))


def _use_is_news() -> Any:
    return or_(keys.c.last_used_at.is_(None), keys.c.last_used_at < now() - _LAST_USE_SECONDS)


def _key(row: Row[Any]) -> Key:
    values = {name: row._mapping[name] for name in Key.__slots__}
    return Key(**(values | {"scopes": tuple(map(Scope, row.scopes.split(",")))}))
