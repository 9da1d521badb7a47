"""Access keys, the owner of each experiment, and the keys by which a repeated request is known."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Without a default: a worker of the release before, which knows no owner, goes on writing its rows.
    op.add_column("experiments", sa.Column("owner", sa.String(64)))
    op.create_index("ix_experiments_owner_id", "experiments", ["owner", "id"])
    op.create_index("ix_experiments_owner_status", "experiments", ["owner", "status"])
    op.create_table(
        "keys",
        sa.Column("id", sa.String(30), nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("scopes", sa.String(64), nullable=False),
        sa.Column("note", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double),
        sa.Column("last_used_at", sa.Double),
        sa.Column("revoked_at", sa.Double),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
    )
    op.create_index("ix_keys_prefix", "keys", ["prefix"])
    op.create_table(
        "idempotency_keys",
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("request", sa.String(64), nullable=False),
        sa.Column("resource_id", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("owner", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])


def downgrade() -> None:
    op.drop_table("idempotency_keys")
    op.drop_table("keys")
    op.drop_index("ix_experiments_owner_status", "experiments")
    op.drop_index("ix_experiments_owner_id", "experiments")
    # Not in batch mode: it would write the table anew, and dropping the old one would delete all that refers to it.
    op.drop_column("experiments", "owner")
