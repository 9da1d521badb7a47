"""Experiments, their tags, and the blocks of what was measured."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "experiments",
        sa.Column("id", sa.String(30), nullable=False),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.Column("row_version", sa.Integer, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("notes", sa.Text),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("layers", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("verdict", sa.String(32)),
        sa.Column("iteration", sa.Integer, nullable=False),
        sa.Column("iterations", sa.Integer, nullable=False),
        sa.Column("queue", sa.String(16), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("maximum_attempts", sa.Integer, nullable=False),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_until", sa.Double),
        sa.Column("message_sent_at", sa.Double),
        sa.Column("cancel_requested_at", sa.Double),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("finished_at", sa.Double),
        sa.Column("result", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("provenance", sa.Text),
        sa.Column("request_id", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_experiments"),
    )
    op.create_index("ix_experiments_status_id", "experiments", ["status", "id"])
    op.create_table(
        "experiment_tags",
        sa.Column("experiment_id", sa.String(30), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("experiment_id", "key", name="pk_experiment_tags"),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["experiments.id"], name="fk_experiment_tags_experiment_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_experiment_tags_key_value_experiment_id", "experiment_tags", ["key", "value", "experiment_id"])
    _create_blocks()


def _create_blocks() -> None:
    op.create_table(
        "blocks",
        sa.Column("experiment_id", sa.String(30), nullable=False),
        sa.Column("tensor", sa.String(32), nullable=False),
        sa.Column("level", sa.Integer, nullable=False),
        sa.Column("first_step", sa.Integer, nullable=False),
        sa.Column("last_step", sa.Integer, nullable=False),
        sa.Column("statistics", sa.LargeBinary),
        sa.Column("counts", sa.LargeBinary),
        sa.PrimaryKeyConstraint("experiment_id", "tensor", "level", "first_step", name="pk_blocks"),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["experiments.id"], name="fk_blocks_experiment_id", ondelete="CASCADE"
        ),
    )
    if op.get_bind().dialect.name == "postgresql":
        # Blocks are compressed already; the server's own attempt would only cost time.
        op.execute("ALTER TABLE blocks ALTER COLUMN statistics SET STORAGE EXTERNAL")
        op.execute("ALTER TABLE blocks ALTER COLUMN counts SET STORAGE EXTERNAL")


def downgrade() -> None:
    op.drop_table("blocks")
    op.drop_table("experiment_tags")
    op.drop_table("experiments")
