"""That the benchmarks run and say what they found; never how fast anything is."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import kernels, overhead, report
from benchmarks.peers import require, rows_of
from benchmarks.results import Goal, Result, Row, Table, cells, document, text
from benchmarks.timing import Timed, Times, in_rounds


@pytest.mark.thorough
def test_a_network_is_measured_with_and_without_the_probe() -> None:
    table = overhead.measure(overhead.NETS["classic"], torch.device("cpu"), overhead.QUICK)
    *timed, same = table.rows
    assert [row.subject for row in timed] == [
        "plain loop",
        "own network in the plain loop",
        "hooks in the plain loop, everything, every step",
        "our loop, nothing recorded",
        "everything, every step",
        "the same, stored in SQLite",
        "every step, histograms every 25th",
        "everything, every 10th step",
    ]
    assert all(isinstance(figure, float) and figure > 0 for row in timed for figure in row.figures.values())
    assert timed[0].figures["ratio"] == 1.0
    assert [bool(row.goals) for row in timed] == [False, False, False, False, True, True, True, True]
    assert same.note == "the same bit for bit"


def test_the_compiled_statistics_are_timed_by_the_element() -> None:
    (table,) = kernels.run(quick=True).tables
    assert len(table.rows) == 4
    for row in table.rows:
        assert set(row.figures) == {"distribution", "with histogram", "weights and update ratio"}
        assert all(isinstance(figure, float) and figure > 0 for figure in row.figures.values())


def test_ratios_are_taken_within_a_round() -> None:
    base = Times([Timed(1.0, 1.0), Timed(10.0, 10.0), Timed(2.0, 2.0)])
    ours = Times([Timed(1.5, 3.0), Timed(15.0, 30.0), Timed(30.0, 60.0)])
    assert ours.over(base) == 1.5  # the third round was disturbed
    assert ours.processor_over(base) == 3.0
    assert (ours.wall, ours.least, ours.processor) == (15.0, 1.5, 30.0)


@pytest.mark.thorough
def test_subjects_take_turns() -> None:
    order: list[str] = []

    def subject(name: str) -> Timed:
        order.append(name)
        return Timed(1.0, 1.0)

    in_rounds({"a": lambda: subject("a"), "b": lambda: subject("b")}, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_a_missing_peer_is_a_row_that_says_how_to_install_it() -> None:
    def measure() -> list[Row]:
        require("no_such_tracker")
        raise AssertionError

    (row,) = rows_of("a tracker", measure)
    assert (row.subject, row.figures, row.met) == ("a tracker", {}, None)
    assert "make bench" in row.note


@pytest.mark.parametrize(
    ("figures", "met"),
    [({"ms": 60.0, "×": 500.0}, True), ({"ms": 61.0, "×": 500.0}, False), ({"ms": 60.0, "×": None}, None)],
)
def test_a_row_meets_all_its_goals_or_none(figures: dict[str, float | str | None], met: bool | None) -> None:
    goals = [Goal("×", "≥", 500.0), Goal("ms", "≤", 60.0, "ms")]
    assert Row("ours", figures, goals).met is met


def test_a_figure_has_three_digits() -> None:
    found = [text(figure) for figure in (0.001234, 1.0, 12.345, 123.4, 12345.6, 7, "6 of 7", None)]
    assert found == ["0.00123", "1.00", "12.3", "123", "12,346", "7", "6 of 7", ""]


@pytest.fixture
def result() -> Result:
    ours = Row("ours", {"ms": 2.0}, [Goal("ms", "≤", 1.0, "ms")])
    return Result("read", [Table("a table", [ours, Row("theirs", note="not installed")])])


def test_a_result_says_what_was_missed_but_not_when_quick(result: Result) -> None:
    assert cells(document(result, quick=False, loads=(0.0, 0.0))["tables"][0]) == (
        ["", "ms", "goal", "met", "note"],
        [["ours", "2.00", "≤ 1 ms", "MISSED", ""], ["theirs", "", "", "", "not installed"]],
    )
    quick = document(result, quick=True, loads=(0.0, 0.0))
    assert quick["tables"][0]["rows"][0]["met"] is None
    assert quick["command"] == "python -m benchmarks.read --quick"


def test_the_report_replaces_what_is_between_the_markers(result: Result, tmp_path: Path) -> None:
    found = json.loads(json.dumps(document(result, quick=False, loads=(0.5, 0.25))))
    path = tmp_path / "page.md"
    path.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n", encoding="utf-8")
    report.write_into(path, report.markdown(found))
    page = path.read_text(encoding="utf-8")
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    assert "old" not in page
    assert "| ours | 2.00 | ≤ 1 ms | MISSED |  |" in page
    path.write_text("no markers", encoding="utf-8")
    with pytest.raises(ValueError, match="has no lines"):
        report.write_into(path, "")


def test_the_document_has_the_markers() -> None:
    page = (Path(__file__).parents[3] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert page.index(report.BEGIN) < page.index(report.END)
