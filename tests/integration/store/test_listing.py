"""Lists: newest first, in pages that neither skip nor repeat, narrowed by every kind of filter."""

from typing import Any

import pytest
from sqlalchemy import event

from gradprobe.state import Status
from gradprobe.store import experiments
from gradprobe.store.database import Database
from gradprobe.store.experiments import Filters
from tests.integration.store.transactions import Store


def found(store: Store, **filters: object) -> list[str | None]:
    """The names that a filter finds, in the order of their making."""
    records = store.read(experiments.page, Filters(**filters), None, 100)  # type: ignore[arg-type]
    return [record.name for record in reversed(records)]


def test_pages_neither_skip_nor_repeat_even_while_new_ones_come(store: Store) -> None:
    identifiers = sorted((store.create().id for _ in range(7)), reverse=True)
    pages: list[list[str]] = []
    before = None
    for _ in range(4):
        pages.append([record.id for record in store.read(experiments.page, Filters(), before, 3)])
        before = pages[-1][-1] if pages[-1] else before
        store.create()
    assert pages == [identifiers[:3], identifiers[3:6], identifiers[6:], []]


def test_the_newest_comes_first_with_its_tags(store: Store) -> None:
    first = store.create({"tags": {"n": "1"}})
    second = store.create({"tags": {"n": "2", "m": "x"}})
    page = store.read(experiments.page, Filters(), None, 10)
    assert {record.id: record.tags for record in page} == {first.id: {"n": "1"}, second.id: {"n": "2", "m": "x"}}
    assert page == sorted([first, second], key=lambda record: record.id, reverse=True)


def test_an_empty_list(store: Store) -> None:
    assert store.read(experiments.page, Filters(), None, 10) == []


def test_by_status(store: Store) -> None:
    waiting, running = store.create().id, store.running().experiment_id
    for status, identifier in ((Status.QUEUED, waiting), (Status.RUNNING, running)):
        assert [record.id for record in store.read(experiments.page, Filters(status=status), None, 10)] == [identifier]
    assert store.read(experiments.page, Filters(status=Status.FAILED), None, 10) == []


def test_by_verdict(store: Store) -> None:
    identifier = store.create({"name": "a"}).id
    store.create({"name": "b"})
    store.set(identifier, verdict="vanishing")
    assert found(store, verdict="vanishing") == ["a"]
    assert found(store, verdict="healthy") == []


def test_by_tags_all_of_which_must_hold(store: Store) -> None:
    store.create({"name": "both", "tags": {"course": "dl-101", "week": "3"}})
    store.create({"name": "one", "tags": {"course": "dl-101"}})
    store.create({"name": "other", "tags": {"course": "dl-102", "week": "3"}})
    assert set(found(store, tags={"course": "dl-101"})) == {"both", "one"}
    assert found(store, tags={"course": "dl-101", "week": "3"}) == ["both"]
    assert found(store, tags={"course": "DL-101"}) == []
    assert found(store, tags={"course": "dl-%"}) == []
    assert found(store, tags={"dl-101": "course"}) == []


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("50%", {"50% done"}),
        ("%", {"50% done"}),
        ("_", {"snake_case"}),
        ("e_c", {"snake_case"}),
        ("'", {"it's"}),
        ('"', {'say "hi"'}),
        ("\\", {"back\\slash"}),
        ("/", {"a/b"}),
        ("SNAKE", {"snake_case"}),
        ("Ärger", {"Ärger"}),
        ("rger", {"Ärger"}),
        ("'; DROP TABLE experiments; --", set()),
        ("absent", set()),
        ("\0", set()),
    ],
)
def test_by_a_part_of_the_name(store: Store, part: str, names: set[str]) -> None:
    for name in ("50% done", "snake_case", "it's", 'say "hi"', "back\\slash", "a/b", "plain", "Ärger"):
        store.create({"name": name})
    store.create()
    assert set(found(store, name=part)) == names


@pytest.mark.parametrize("filters", [{"verdict": "\0"}, {"tags": {"\0": "x"}}, {"tags": {"x": "\0"}}])
def test_what_no_text_can_hold_is_not_found(store: Store, filters: dict[str, object]) -> None:
    store.create({"tags": {"x": "x"}})
    assert found(store, **filters) == []


def test_filters_hold_together_and_across_pages(store: Store) -> None:
    wanted = [store.create({"name": f"run {number}", "tags": {"k": "v"}}).id for number in range(4)]
    store.create({"name": "run 5"})
    store.create({"name": "other", "tags": {"k": "v"}})
    filters = Filters(status=Status.QUEUED, name="run", tags={"k": "v"})
    first = store.read(experiments.page, filters, None, 3)
    second = store.read(experiments.page, filters, first[-1].id, 3)
    assert [record.id for record in [*first, *second]] == sorted(wanted, reverse=True)


@pytest.mark.parametrize(
    ("stored", "searched"), [("Größe ÄÖ", "größe ä"), ("straße", "STRASSE"), ("Σίσυφος", "σίσυφοσ")]
)
def test_names_are_found_in_any_case_of_any_alphabet(store: Store, stored: str, searched: str) -> None:
    wanted = store.create({"name": stored})
    store.create({"name": "other"})
    assert found(store, name=searched) == [stored]
    store.write(experiments.change, wanted.id, {"name": "changed"})
    assert found(store, name=searched) == []
    assert found(store, name="changed") == ["changed"]
    store.write(experiments.change, wanted.id, {"name": None})
    assert found(store, name="changed") == []


@pytest.mark.parametrize(
    "filters",
    [
        Filters(),
        Filters(status=Status.SUCCEEDED),
        Filters(verdict="vanishing"),
        Filters(name="sigmoid"),
        Filters(tags={"course": "a"}),
    ],
)
def test_what_a_page_holds_is_found_in_indexes_alone(sqlite_database: Database, filters: Filters) -> None:
    """A row is twenty times as wide as what a filter looks at; SQLite says how it goes about it."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    with sqlite_database.read() as connection:
        event.listen(connection, "before_cursor_execute", note)
        experiments.page(connection, filters, None, 10)
        event.remove(connection, "before_cursor_execute", note)
        statement, parameters = next(found for found in statements if "FROM experiments" in found[0])
        plan = [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    found = [step for step in plan if "USING" in step and "(id=?)" not in step]
    assert found, plan
    assert all("COVERING INDEX" in step for step in found), plan
