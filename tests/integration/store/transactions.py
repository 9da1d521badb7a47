"""Short ways to what a user and a worker do, each call in a transaction of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import select, update

from gradprobe.spec import Spec
from gradprobe.store import experiments, leases
from gradprobe.store.database import Database
from gradprobe.store.experiments import Record
from gradprobe.store.leases import Lease
from gradprobe.store.tables import experiments as table
from gradprobe.store.tables import now

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Store:
    """One database; each call is one transaction."""

    database: Database

    def write(self, action: Callable[..., Answer], *arguments: Any, **options: Any) -> Answer:
        with self.database.write() as connection:
            return action(connection, *arguments, **options)

    def read(self, action: Callable[..., Answer], *arguments: Any, **options: Any) -> Answer:
        with self.database.read() as connection:
            return action(connection, *arguments, **options)

    def create(self, document: dict[str, Any] | None = None, attempts: int = 3) -> Record:
        return self.write(experiments.create, Spec.model_validate(document or {}), attempts)

    def get(self, identifier: str) -> Record:
        return self.read(experiments.get, identifier)

    def claim(self, identifier: str, owner: str = "worker-1", seconds: float = 60.0) -> tuple[Record, Lease] | None:
        return self.write(leases.claim, identifier, owner, seconds)

    def running(self, attempts: int = 3, seconds: float = 60.0) -> Lease:
        """A new experiment that a worker holds."""
        claimed = self.claim(self.create(attempts=attempts).id, seconds=seconds)
        assert claimed is not None
        return claimed[1]

    def lose_worker(self, identifier: str) -> None:
        """As if the lease had run out a second ago."""
        self.set(identifier, lease_until=now() - 1.0)

    def set(self, identifier: str, **values: Any) -> None:
        with self.database.write() as connection:
            connection.execute(update(table).where(table.c.id == identifier).values(values))

    def column(self, identifier: str, name: str) -> Any:
        with self.database.read() as connection:
            return connection.scalar(select(table.c[name]).where(table.c.id == identifier))

    def row(self, identifier: str) -> dict[str, Any]:
        """All columns of an experiment."""
        with self.database.read() as connection:
            return dict(connection.execute(select(table).where(table.c.id == identifier)).one()._mapping)

    def clock(self) -> float:
        """The database's own."""
        with self.database.read() as connection:
            return float(connection.scalar(select(now())) or 0.0)
