"""Runs: loops that are not ours and report what they measure."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Without a default: null is what a service or worker of the release before writes, and means.
    op.add_column("experiments", sa.Column("source", sa.String(16)))


def downgrade() -> None:
    op.drop_column("experiments", "source")
