"""Alembic's entry: runs on the connection that `gradprobe.store.migrate` hands over."""

from alembic import context

from gradprobe.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=False,  # the transaction is the caller's, so that all migrations happen or none
)
context.run_migrations()
