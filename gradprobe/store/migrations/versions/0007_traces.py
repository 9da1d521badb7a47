"""The trace that an experiment's request belongs to, for the worker to go on with."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("experiments", sa.Column("traceparent", sa.String(64)))


def downgrade() -> None:
    op.drop_column("experiments", "traceparent")
