"""Which of the two databases a test is run on."""

import pytest

#: For what takes seconds and asks little of the database: PostgreSQL's turn is `make thorough`'s.
POSTGRESQL_AT_LENGTH = pytest.mark.parametrize(
    "database_kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.thorough)], indirect=True
)
