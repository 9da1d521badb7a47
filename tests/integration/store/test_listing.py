"""Lists: newest first, in pages that neither skip nor repeat, narrowed by every kind of filter."""

import json

import pytest

from gradprobe.state import Status
from gradprobe.store import experiments, listing
from gradprobe.store.database import Database
from gradprobe.store.listing import SORTS, Filters, Position, Sort
from tests.integration.store.plans import plan
from tests.integration.store.transactions import Store


def found(store: Store, **filters: object) -> list[str | None]:
    """The names that a filter finds, in the order of their making."""
    records = store.read(experiments.page, Filters(**filters), None, 100)  # type: ignore[arg-type]
    return [record.name for record in reversed(records)]


def test_pages_neither_skip_nor_repeat_even_while_new_ones_come(store: Store) -> None:
    identifiers = sorted((store.create().id for _ in range(7)), reverse=True)
    pages: list[list[str]] = []
    after = None
    for _ in range(4):
        pages.append([record.id for record in store.read(experiments.page, Filters(), after, 3)])
        after = Position(pages[-1][-1]) if pages[-1] else after
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
    second = store.read(experiments.page, filters, Position(first[-1].id), 3)
    assert [record.id for record in [*first, *second]] == sorted(wanted, reverse=True)


@pytest.mark.parametrize("sort", ["created", "-created"])
def test_those_of_a_tag_are_paged_either_way(store: Store, sort: Sort) -> None:
    made = [store.create({"tags": {"k": "v", "half": str(number % 2)}}).id for number in range(8)]
    for identifier in made[:6]:
        store.set(identifier, status=Status.SUCCEEDED, verdict="healthy")
    for filters, wanted in (
        (Filters(tags={"k": "v"}), made),
        (Filters(tags={"k": "v", "half": "1"}), made[1::2]),
        (Filters(tags={"k": "v", "half": "1"}, status=Status.QUEUED), made[7:]),
        (Filters(tags={"half": "0", "k": "v"}, status=Status.SUCCEEDED), made[0:6:2]),
        (Filters(tags={"half": "0"}, verdict="healthy"), made[0:6:2]),
        (Filters(tags={"half": "0"}, sweep="none"), []),
    ):
        after, found = None, []
        while places := store.read(listing.page, filters, sort, after, 2):
            found += [place.id for place in places]
            after = places[-1]
        assert found == sorted(wanted, reverse=sort == "-created")


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


def numbered(store: Store) -> dict[str, str]:
    """Six experiments by id, some of which have neither name, verdict nor accuracy."""
    made = {}
    for number, name in enumerate(("b", None, "A", "b", "ä", None)):
        identifier = store.create({"name": name}).id
        made[identifier] = str(number)
        accuracy = {0: 0.5, 2: 0.25, 3: 0.5, 4: 1.0}.get(number)
        result = json.dumps({"test_accuracy": accuracy}) if number != 5 else None
        store.set(identifier, result=result, verdict={0: "vanishing", 2: "healthy", 4: "healthy"}.get(number))
        store.set(identifier, status=("succeeded", "failed", "succeeded", "succeeded", "running", "queued")[number])
    return made


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("-created", "543210"), ("created", "012345"),
        ("name", "203415"), ("-name", "430251"),
        ("status", "154023"), ("-status", "320451"),
        ("verdict", "240135"), ("-verdict", "042531"),
        ("accuracy", "203415"), ("-accuracy", "430251"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 2, 4, 6])
def test_every_order_and_its_pages(store: Store, sort: Sort, order: str, size: int) -> None:
    """What ties is in order of creation, what has no value comes last either way."""
    made = numbered(store)
    after, found = None, ""
    while places := store.read(listing.page, Filters(), sort, after, size):
        found += "".join(made[place.id] for place in places)
        after = places[-1]
    assert found == order


def test_pages_of_an_order_stand_while_others_come_go_and_change(store: Store) -> None:
    made = {store.create({"name": name}).id: name for name in "bdfh"}
    first = store.read(listing.page, Filters(), "name", None, 2)
    assert [made[place.id] for place in first] == ["b", "d"]
    store.write(experiments.change, first[0].id, {"name": "z"})  # seen already; it is where it is now
    store.write(experiments.remove, first[1].id)  # what the cursor names is gone
    store.create({"name": "a"})
    late = store.create({"name": "e"}).id
    rest = store.read(listing.page, Filters(), "name", first[-1], 9)
    assert [made.get(place.id, "e") for place in rest] == ["e", "f", "h", "b"]
    assert rest[0].id == late


def test_an_order_of_what_is_filtered(store: Store) -> None:
    for number, tagged in enumerate(("x", "y", "x", "x")):
        store.create({"name": f"n{3 - number}", "tags": {"k": tagged}})
    records = store.read(experiments.page, Filters(tags={"k": "x"}), None, 9, "name")
    assert [record.name for record in records] == ["n0", "n1", "n3"]


@pytest.mark.parametrize(
    "filters",
    [
        Filters(),
        Filters(status=Status.SUCCEEDED),
        Filters(verdict="vanishing"),
        Filters(name="s"),
        Filters(tags={"course": "a"}),
    ],
)
def test_what_a_page_holds_is_found_in_indexes_alone(sqlite_database: Database, filters: Filters) -> None:
    """A row is twenty times as wide as what a filter looks at; SQLite says how it goes about it."""
    [steps] = plan(sqlite_database, listing.page, filters, "-created", None, 10)
    found = [step for step in steps if "USING" in step and "(id=?)" not in step]
    assert found, steps
    assert all("COVERING INDEX" in step for step in found), steps


def test_what_a_page_shows_is_looked_up_by_id(sqlite_database: Database) -> None:
    store = Store(sqlite_database)
    made = [store.create({"tags": {"k": "x"}}).id for _ in range(2)]
    rows, tagged = plan(sqlite_database, experiments.read_all, made)
    assert ["(id=?)" in rows[0], "(experiment_id=?)" in tagged[0]] == [True, True], (rows, tagged)


@pytest.mark.parametrize("sort", SORTS)
def test_no_order_sorts(sqlite_database: Database, sort: Sort) -> None:
    """Each is the order of an index, the first page and any other."""
    value = 0.5 if "accuracy" in sort else None if "created" in sort else "x"
    for after in (None, Position("exp_0", value)):
        for steps in plan(sqlite_database, listing.page, Filters(), sort, after, 10):
            assert "USING" in steps[0], steps
            assert not any("TEMP B-TREE" in step for step in steps), steps


@pytest.mark.parametrize(
    "filters",
    [
        Filters(tags={"a": "x"}),
        Filters(tags={"a": "x", "b": "x"}),
        Filters(tags={"a": "x"}, status=Status.QUEUED),
        Filters(tags={"a": "x"}, status=Status.SUCCEEDED),
        Filters(tags={"a": "x"}, sweep="swp_1"),
    ],
)
def test_those_of_a_tag_are_not_all_written_down_for_a_page(sqlite_database: Database, filters: Filters) -> None:
    for after in (None, Position("exp_0")):
        *_sizes, steps = plan(sqlite_database, listing.page, filters, "-created", after, 10)
        assert not any("LIST" in step or "TEMP B-TREE" in step or step.startswith("SCAN") for step in steps), steps
