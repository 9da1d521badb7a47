"""What watchers ask again and again, for many experiments at once, so that it has to be cheap."""

from collections.abc import Collection

from sqlalchemy import Connection, select

from gradprobe.store.tables import experiments


def versions(connection: Connection, identifiers: Collection[str]) -> dict[str, int]:
    """The row version of each that exists: it rises with every write to the experiment or to what it measured."""
    query = select(experiments.c.id, experiments.c.row_version).where(experiments.c.id.in_(identifiers))
    return {identifier: int(version) for identifier, version in connection.execute(query)}
