"""The store under test, on each database."""

import pytest

from gradprobe.store.database import Database
from tests.integration.store.transactions import Store


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database)
