"""Lists of many experiments: names as they are searched, and what filters need indexed.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_BATCH = 1000


def upgrade() -> None:
    op.add_column("experiments", sa.Column("folded_name", sa.Text))
    _fold_names()
    op.create_index("ix_experiments_verdict_id", "experiments", ["verdict", "id"])
    op.create_index("ix_experiments_id_folded_name", "experiments", ["id", "folded_name"])


def _fold_names() -> None:
    experiments = sa.table("experiments", sa.column("id"), sa.column("name"), sa.column("folded_name"))
    change = (
        sa.update(experiments)
        .where(experiments.c.id == sa.bindparam("identifier"))
        .values(folded_name=sa.bindparam("folded"))
    )
    connection, last = op.get_bind(), ""
    named = sa.select(experiments.c.id, experiments.c.name).where(experiments.c.name.is_not(None))
    while rows := connection.execute(named.where(experiments.c.id > last).order_by("id").limit(_BATCH)).all():
        # Not the databases' own lower(): SQLite's knows ASCII alone.
        connection.execute(change, [{"identifier": row.id, "folded": row.name.casefold()} for row in rows])
        last = rows[-1].id


def downgrade() -> None:
    op.drop_index("ix_experiments_id_folded_name", "experiments")
    op.drop_index("ix_experiments_verdict_id", "experiments")
    op.drop_column("experiments", "folded_name")
