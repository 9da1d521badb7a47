"""Experiments that can train side by side know it of each other."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_INDEX = "ix_experiments_stack_key_status_id"


def upgrade() -> None:
    # Null, which a service of the release before writes: it trains by itself.
    op.add_column("experiments", sa.Column("stack_key", sa.String(32)))
    op.create_index(_INDEX, "experiments", ["stack_key", "status", "id"])


def downgrade() -> None:
    op.drop_index(_INDEX, "experiments")
    op.drop_column("experiments", "stack_key")
