"""Lists in other orders than the newest first: by name, and by the test accuracy that a result tells of."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_ACCURACY = {
    "sqlite": "coalesce(json_extract(result, '$.test_accuracy'), -1)",
    "postgresql": "coalesce((result::json ->> 'test_accuracy')::double precision, '-1'::double precision)",
}


def upgrade() -> None:
    op.create_index("ix_experiments_folded_name_id", "experiments", ["folded_name", "id"])
    # On what is in the result already, and not on a column of its own: the workers of the release before, who would not
    # write that, go on meanwhile.
    accuracy = _ACCURACY[op.get_context().dialect.name]
    op.execute(f"CREATE INDEX ix_experiments_test_accuracy_id ON experiments ({accuracy}, id)")


def downgrade() -> None:
    op.drop_index("ix_experiments_test_accuracy_id", "experiments")
    op.drop_index("ix_experiments_folded_name_id", "experiments")
