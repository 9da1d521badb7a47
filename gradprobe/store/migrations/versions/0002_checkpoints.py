"""Checkpoints, from which a next attempt goes on. A worker of the release before ignores them and begins anew."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("experiment_id", sa.String(30), nullable=False),
        sa.Column("iteration", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("saved_at", sa.Double, nullable=False),
        sa.Column("checksum", sa.BigInteger, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("experiment_id", name="pk_checkpoints"),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["experiments.id"], name="fk_checkpoints_experiment_id", ondelete="CASCADE"
        ),
    )
    if op.get_bind().dialect.name == "postgresql":
        # Parameters hardly compress; the server's attempt would only cost time.
        op.execute("ALTER TABLE checkpoints ALTER COLUMN state SET STORAGE EXTERNAL")


def downgrade() -> None:
    op.drop_table("checkpoints")
