"""What ended long ago is found in an index, however much there is."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_INDEX = "ix_experiments_finished_at_id_status"


def upgrade() -> None:
    op.create_index(_INDEX, "experiments", ["finished_at", "id", "status"])


def downgrade() -> None:
    op.drop_index(_INDEX, "experiments")
