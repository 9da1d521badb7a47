"""How a database goes about what it is asked."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import event

from gradprobe.store.database import Database


def plan(database: Database, action: Callable[..., Any], *arguments: Any) -> list[list[str]]:
    """The steps of each statement of an action, which is done as well."""
    explain = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    with database.write() as connection:
        if not database.is_sqlite:
            # A table of a few rows is always read whole.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        event.listen(connection, "before_cursor_execute", note)
        action(connection, *arguments)
        event.remove(connection, "before_cursor_execute", note)
        return [
            [str(row[-1]) for row in connection.exec_driver_sql(f"{explain} {statement}", parameters)]
            for statement, parameters in statements
        ]
