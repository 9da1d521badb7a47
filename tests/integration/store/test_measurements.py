"""What the diagnosis reads of a run: everything of a short one, first steps and buckets of a long one."""

from typing import Any

import numpy as np
import pytest

from gradprobe.blocks import StatisticsBlock
from gradprobe.diagnosis import diagnose
from gradprobe.levels import WIDTHS, LevelBlock
from gradprobe.spec import Spec
from gradprobe.store import experiments, measurements, series
from gradprobe.store.database import Database
from gradprobe.store.reader import Reader
from tests.unit.gradprobe.diagnosis.made import Made, spec_of


def stored(database: Database, made: Made) -> str:
    with database.write() as connection:
        identifier = experiments.create(connection, made.spec, 3).id
        for tensor, values in made.values.items():
            block = StatisticsBlock(made.steps.astype(np.int64), values.astype(np.float32))
            series.write(connection, identifier, tensor, block)
            for level, width in WIDTHS.items():
                buckets = LevelBlock.of(block).merged(width)
                series.write_level(connection, identifier, tensor, level, buckets, int(made.steps[-1]))
    return identifier


def read(database: Database, identifier: str, spec: Spec) -> Any:
    with database.read() as connection:
        return measurements.read(Reader(connection, identifier), spec)


def test_a_short_run_is_read_as_it_was_measured(sqlite_database: Database) -> None:
    made = Made(spec_of(), steps=50)
    found = read(sqlite_database, stored(sqlite_database, made), made.spec)
    for tensor, statistic in (("output_gradients", "norm"), ("weights", "update_ratio"), ("metrics", "loss")):
        assert np.array_equal(found.series(tensor, statistic), made.measurements.series(tensor, statistic))


def test_a_long_run_is_read_in_bounded_memory_and_judged_alike(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurements, "_FEWEST_COLUMNS", 200)
    monkeypatch.setattr(measurements, "_MOST_VALUES", 0)
    made = Made(spec_of(), steps=4000).put("activations", "dead_fraction", 0.95, 2, start=2000)
    made.values["weight_gradients"][6, 1, 3333] = 7  # one step among four thousand is not finite
    found = read(sqlite_database, stored(sqlite_database, made), made.spec)
    assert len(found.steps()) <= 200
    assert len(found.steps("weights")) == len(found.steps())
    whole, some = diagnose(made.measurements), diagnose(found)
    assert [finding.rule for finding in some.findings] == [finding.rule for finding in whole.findings]
    assert some.failed_rules == ()
    for finding, other in zip(some.findings, whole.findings, strict=True):
        assert finding.first_step == pytest.approx(other.first_step, abs=80)
