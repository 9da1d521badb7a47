"""Owners and their keys, for tests of what each may reach."""

from collections.abc import Collection
from dataclasses import dataclass

from gradprobe.access import Scope
from gradprobe.store import keys
from gradprobe.store.database import Database

READ_WRITE = (Scope.READ, Scope.WRITE)


@dataclass(frozen=True)
class Bearer:
    """One key."""

    id: str
    secret: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"}


def bearer(database: Database, owner: str, scopes: Collection[Scope] = READ_WRITE) -> Bearer:
    """A new key of an owner."""
    with database.write() as connection:
        key, secret = keys.create(connection, owner, scopes)
    return Bearer(key.id, secret)
