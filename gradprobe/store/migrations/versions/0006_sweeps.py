"""Groups of experiments (sweeps, and remedies that are tried), and what a member of one came to."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Without defaults or foreign keys: a worker of the release before goes on writing its rows.
    for name, kind in (("sweep_id", sa.String(30)), ("member", sa.Text), ("summary", sa.Text)):
        op.add_column("experiments", sa.Column(name, kind))
    op.create_index("ix_experiments_sweep_id_id", "experiments", ["sweep_id", "id"])
    op.create_table(
        "sweeps",
        sa.Column("id", sa.String(30), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("base", sa.Text, nullable=False),
        sa.Column("definition", sa.Text, nullable=False),
        sa.Column("stage", sa.Integer, nullable=False),
        sa.Column("experiment_id", sa.String(30)),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("request_id", sa.Text),
        sa.Column("owner", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name="pk_sweeps"),
    )
    op.create_index("ix_sweeps_kind_id", "sweeps", ["kind", "id"])
    op.create_index("ix_sweeps_experiment_id", "sweeps", ["experiment_id"])
    op.create_index("ix_sweeps_stage", "sweeps", ["stage"])


def downgrade() -> None:
    op.drop_table("sweeps")
    op.drop_index("ix_experiments_sweep_id_id", "experiments")
    for name in ("summary", "member", "sweep_id"):
        op.drop_column("experiments", name)
