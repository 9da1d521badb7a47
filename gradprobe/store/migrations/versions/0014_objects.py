"""What ended experiments measured may lie in an object store; which parts of which object, stays here."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_INDEX = "ix_experiments_object_finished_at_id_status"
_PLACES = tuple(f"{name}_{what}" for name in ("statistics", "counts") for what in ("start", "length", "checksum"))


def upgrade() -> None:
    # Null, which a worker of the release before writes: the bytes are in the row.
    for name in _PLACES:
        op.add_column("blocks", sa.Column(name, sa.BigInteger))
    op.add_column("experiments", sa.Column("object", sa.String(64)))
    op.create_index(_INDEX, "experiments", ["object", "finished_at", "id", "status"])
    op.create_table(
        "objects",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("experiment_id", sa.String(30), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("condemned_at", sa.Double),
        sa.PrimaryKeyConstraint("name", name="pk_objects"),
    )
    op.create_index("ix_objects_experiment_id", "objects", ["experiment_id"])
    op.create_index("ix_objects_condemned_at", "objects", ["condemned_at"])


def downgrade() -> None:
    # Where the bytes are would be forgotten with these columns.
    if op.get_bind().scalar(sa.text("SELECT count(*) FROM objects WHERE condemned_at IS NULL")):
        raise RuntimeError("measurements are in the object store; bring them back first: gradprobe archive --back")
    op.drop_table("objects")
    op.drop_index(_INDEX, "experiments")
    op.drop_column("experiments", "object")
    for name in _PLACES:
        op.drop_column("blocks", name)
