"""Lists in every order: an index for each, with what filters look at beside it."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_BEFORE: tuple[tuple[str, ...], ...] = (("status", "id"), ("verdict", "id"), ("id", "folded_name"))
_AFTER: tuple[tuple[str, ...], ...] = (
    ("id", "folded_name", "status", "verdict", "owner", "sweep_id"),
    ("folded_name", "id", "status", "verdict", "owner", "sweep_id"),
    ("status", "id", "verdict", "owner", "sweep_id", "folded_name"),
    ("verdict", "id", "status", "owner", "sweep_id", "folded_name"),
)
_ACCURACY = {
    "sqlite": "coalesce(json_extract(result, '$.test_accuracy'), -1)",
    "postgresql": "coalesce((result::json ->> 'test_accuracy')::double precision, '-1'::double precision)",
}


def upgrade() -> None:
    for columns in _AFTER:
        op.create_index(_name(columns), "experiments", list(columns))
    # On what the result tells already, and not on a column of its own: the workers of the release before, who would not
    # write that, go on meanwhile.
    accuracy = _ACCURACY[op.get_context().dialect.name]
    others = "id, status, verdict, owner, sweep_id, folded_name"
    op.execute(f"CREATE INDEX ix_experiments_test_accuracy ON experiments ({accuracy}, {others})")
    for columns in _BEFORE:
        op.drop_index(_name(columns), "experiments")


def downgrade() -> None:
    for columns in _BEFORE:
        op.create_index(_name(columns), "experiments", list(columns))
    op.drop_index("ix_experiments_test_accuracy", "experiments")
    for columns in _AFTER:
        op.drop_index(_name(columns), "experiments")


def _name(columns: tuple[str, ...]) -> str:
    return f"ix_experiments_{'_'.join(columns)}"
