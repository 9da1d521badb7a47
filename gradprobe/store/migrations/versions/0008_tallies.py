"""Totals that only grow, whatever is deleted; and an index to add up the attempts of what is there."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tallies",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_tallies"),
    )
    op.create_index("ix_experiments_attempt", "experiments", ["attempt"])


def downgrade() -> None:
    op.drop_index("ix_experiments_attempt", "experiments")
    op.drop_table("tallies")
