"""The scale benchmark runs, and its rows are what they say."""

from dataclasses import replace

import pytest
import torch

from benchmarks.results import Figure
from benchmarks.scale import gpu, service, stacks


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


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_where_there_is_no_gpu_the_table_says_so() -> None:
    (table,) = gpu.tables(quick=True)
    (row,) = table.rows
    assert row.note == "no GPU here"
    assert not row.figures


@pytest.mark.thorough
def test_what_is_measured_on_a_gpu_is_measured_on_any_device() -> None:
    """On the CPU, of which nothing is told: the rows, their goals and that each was timed."""
    stacked, single = gpu.measure(replace(stacks.QUICK, members=(4, 2)), torch.device("cpu"), "a test")
    assert [row.subject for row in stacked.rows] == [
        stacks.PLAIN,
        "4 members, everything, every 10th step",
        "4 members, everything, every step",
        "2 members, everything, every 10th step",
    ]
    goals = [str(goal) for table in (stacked, single) for row in table.rows for goal in row.goals]
    assert goals == ["≥ 1000×", "≥ 5×"]
    assert all(number(row.figures["µs a member's step"]) > 0 for table in (stacked, single) for row in table.rows)


@pytest.mark.thorough
def test_a_sweep_is_timed_beside_scripts() -> None:
    scripts, sweep = service.sweep(service.QUICK).rows
    assert number(sweep.figures["seconds"]) > 0
    assert number(scripts.figures["seconds"]) > number(sweep.figures["seconds"]) / 100
