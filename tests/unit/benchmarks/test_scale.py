"""The scale benchmark runs, and its rows are what they say."""

import pytest

from benchmarks.results import Figure
from benchmarks.scale import __main__ as command
from benchmarks.scale import service, stacks


def number(figure: Figure) -> float:
    assert isinstance(figure, float | int)
    return float(figure)


@pytest.mark.thorough
def test_stacks_are_timed_beside_plain_loops() -> None:
    largest, by_members = stacks.measure(stacks.QUICK)
    rows = {row.subject: row.figures for row in largest.rows}
    assert rows.keys() >= {stacks.PLAIN, "everything, every 10th step", "everything, every step, stored in SQLite"}
    assert all(number(figures["µs a member's step"]) > 0 for figures in rows.values())
    assert rows[stacks.PLAIN][stacks.FASTER] == 1.0
    assert [row.subject for row in by_members.rows] == [stacks.PLAIN, "4 members"]


def test_where_there_is_no_gpu_the_table_says_so() -> None:
    (row,) = command.gpu().rows
    assert row.note
    assert not row.figures


@pytest.mark.thorough
def test_a_sweep_is_timed_beside_scripts() -> None:
    scripts, sweep = service.sweep(service.QUICK).rows
    assert number(sweep.figures["seconds"]) > 0
    assert number(scripts.figures["seconds"]) > number(sweep.figures["seconds"]) / 100
