"""A part of a name is looked up: what is kept of names for that, and which names it is kept of."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_INDEX = "ix_experiments_unsearched"
_UNSEARCHED = sa.column("folded_name").is_distinct_from(sa.column("searched_name"))
#: Sixteen characters from every second place on, in order, so that the table is written from one end to the other.
_FILL = """
    INSERT INTO name_parts (part, experiment_id)
    WITH RECURSIVE rests (id, rest) AS (
        SELECT id, folded_name FROM experiments WHERE folded_name <> ''
        UNION ALL SELECT id, substr(rest, 3) FROM rests WHERE length(rest) > 2
    )
    SELECT part, id FROM (SELECT substr(rest, 1, 16) AS part, id FROM rests) AS parts
    GROUP BY part, id ORDER BY part, id
"""


def upgrade() -> None:
    part = sa.String(16).with_variant(sa.String(16, collation="C"), "postgresql")
    op.create_table(
        "name_parts",
        sa.Column("part", part, nullable=False),
        sa.Column("experiment_id", sa.String(30), nullable=False),
        sa.PrimaryKeyConstraint("part", "experiment_id", name="pk_name_parts"),
        sqlite_with_rowid=False,
    )
    # Null, which a service of the release before writes: not yet among them.
    op.add_column("experiments", sa.Column("searched_name", sa.Text))
    op.execute("UPDATE experiments SET searched_name = folded_name WHERE folded_name IS NOT NULL")
    op.execute(_FILL)
    op.create_index(_INDEX, "experiments", ["id"], sqlite_where=_UNSEARCHED, postgresql_where=_UNSEARCHED)


def downgrade() -> None:
    op.drop_index(_INDEX, "experiments")
    op.drop_column("experiments", "searched_name")
    op.drop_table("name_parts")
