"""That many blocks are real ones, and that few and many are asked the same; never how fast it was."""

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import func, select

from benchmarks import blocks, bulk
from benchmarks.results import Goal
from gradprobe.settings import Settings
from gradprobe.store import retention
from gradprobe.store.database import Database
from gradprobe.store.tables import blocks as table
from tests.databases import POSTGRESQL_AT_LENGTH
from tests.integration.service.serving import serving

TINY = blocks.Effort(few=100 * bulk.BLOCKS_EACH, many=200 * bulk.BLOCKS_EACH, rounds=1, large_purge=20)


@pytest.mark.parametrize("database_kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.thorough)])
@pytest.mark.thorough
def test_few_and_many_are_asked_the_same_and_what_many_cost_more_is_judged(database_kind: str) -> None:
    measured, stored, purged = blocks.measure(database_kind, TINY)
    assert len(measured.rows) == 24
    for row in measured.rows:
        assert all(isinstance(figure, float) and figure > 0 for figure in row.figures.values())
        assert (row.met is None) is row.subject.startswith("figures")  # it has no goal
    assert {goal for row in measured.rows for goal in row.goals} == {*blocks.READ_GOALS}
    assert blocks.READ_GOALS[0] == Goal("ratio", "≤", 1.5)
    assert [row.figures["experiments"] for row in stored.rows] == [100, 200]
    assert purged.rows[0].subject == "20 experiments, 1,000 of 10,000 blocks"


@pytest.mark.thorough
def test_lists_alone_are_asked_of_experiments_without_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_MEMBERS", 20)
    measured, names = blocks.measure("sqlite", replace(TINY, lists_alone=True))
    assert measured.title.endswith("100 experiments and with 200")
    assert [row.subject.partition(":")[0] for row in measured.rows] == ["list"] * 16 + ["write"] * 2 + ["delete"]
    assert all(row.goals == blocks.READ_GOALS for row in measured.rows[:16])
    assert names.rows[0].figures["parts"] == pytest.approx(12.5, abs=1.0)


@POSTGRESQL_AT_LENGTH
def test_each_experiment_has_all_its_blocks_and_they_are_read_as_any_others(database: Database, tmp_path: Path) -> None:
    url = database.url.render_as_string(hide_password=False)
    settings = Settings(data_directory=tmp_path, database_url=url, redis_url="redis://127.0.0.1:1/0")
    told: list[int] = []
    identifiers = bulk.fill(settings, 3 * bulk.A_DAY, told.append)

    with database.read() as connection:
        count = select(table.c.experiment_id, func.count()).group_by(table.c.experiment_id)
        found = {row[0]: row[1] for row in connection.execute(count)}
    assert found == dict.fromkeys(identifiers, bulk.BLOCKS_EACH)
    assert sum(told) == len(identifiers) * bulk.BLOCKS_EACH

    with serving(settings) as client:
        whole, same = (client.get(f"/experiments/{one}/gradients").json() for one in (identifiers[0], identifiers[-1]))
        assert whole["steps"] == list(range(64))
        assert whole["layers"] == same["layers"]
        sampled = client.get(f"/experiments/{identifiers[0]}/gradients?max_points=8").json()
        assert sampled["reduction"] == {"method": "minmax", "points": 8, "of_points": 64, "bucket": 16}
        assert len(client.get(f"/experiments/{identifiers[0]}/gradients/histograms").json()["steps"]) == 8
        assert len(client.get("/experiments?status=failed").json()["items"]) == 8

    with database.read() as connection:
        old = [retention.count_old(connection, days * bulk.DAY_SECONDS) for days in (3, 2, 1, 0)]
    assert old == [0, 20, 40, 60]
