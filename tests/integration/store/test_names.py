"""A part of a name is found as Python finds it, however it was written; what is kept for it goes with it."""

import contextlib
import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select
from sqlalchemy.engine import make_url

from gradprobe.errors import ExperimentNotFound
from gradprobe.identifiers import new_experiment_id, new_sweep_id
from gradprobe.spec import Spec
from gradprobe.state import Status
from gradprobe.store import experiments, listing, migrate, names, retention, runs, sweeps, tallies
from gradprobe.store.database import Database
from gradprobe.store.experiments import Member
from gradprobe.store.listing import SORTS, Filters, Sort
from gradprobe.store.sweeps import Group
from gradprobe.store.tables import experiments as table
from gradprobe.store.tables import name_parts, tags
from gradprobe.subject import WatchedSpec
from tests.integration.store.plans import plan
from tests.integration.store.transactions import Store

NAME = "tanh depth 47, learning rate 0.01 and more"
#: Few enough to meet again, with what folding makes longer, what SQL means something by, and the last of all.
LETTERS = "aAbB 1%_/\\'ßẞİıΣςÅÅǰ\U0001f600\U0010ffff"
LOOP = {
    "name": "A loop",
    "network": {"measured": [{"name": "only", "weight_shape": [2, 3], "output_shape": [2]}]},
    "optimizer": {"name": "SGD", "learning_rate": 0.1},
}
texts = st.text(LETTERS, min_size=1, max_size=40)


def kept(store: Store) -> set[tuple[str, str]]:
    """All that is kept: part and experiment."""
    with store.database.read() as connection:
        return {(row.part, row.experiment_id) for row in connection.execute(select(name_parts))}


def wanted(store: Store) -> set[tuple[str, str]]:
    """What should be kept of the names that there are, worked out here."""
    with store.database.read() as connection:
        named = connection.execute(select(table.c.id, table.c.name).where(table.c.name.is_not(None))).all()
    folded = [(row.id, row.name.casefold()) for row in named]
    return {(name[at : at + 16], identifier) for identifier, name in folded for at in range(0, len(name), 2)}


def found(store: Store, part: str, sort: Sort = "created", **filters: Any) -> list[str]:
    places = store.read(listing.page, Filters(name=part, **filters), sort, None, 1000)
    return [place.id for place in places]


# The store is emptied by each example itself.
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
@pytest.mark.parametrize("few", [1000, 4, -1], ids=["looked up", "either", "walked"])
def test_what_is_found_is_what_python_finds(
    store: Store, monkeypatch: pytest.MonkeyPatch, few: int, data: st.DataObject
) -> None:
    monkeypatch.setattr(names, "_FEW", few)
    with store.database.write() as connection:
        for one in (table, name_parts, tags):
            connection.execute(delete(one))
        written = data.draw(st.lists(texts | st.builds(str.__mul__, texts, st.integers(1, 5)), max_size=8))
        made = {experiments.create(connection, Spec(name=name), 1).id: name for name in written}
        for identifier in data.draw(st.lists(st.sampled_from(sorted(made)), max_size=3)) if made else []:
            made[identifier] = data.draw(texts)
            experiments.change(connection, identifier, {"name": made[identifier]})
        for identifier in data.draw(st.lists(st.sampled_from(sorted(made)), max_size=2, unique=True)) if made else []:
            del made[identifier]
            tallies.delete_experiments(connection, table.c.id == identifier)
    places = st.tuples(st.sampled_from(sorted(made.values()) or ["x"]), st.integers(0, 99), st.integers(1, 60))
    parts = places.map(lambda place: place[0][(start := place[1] % len(place[0])) : start + place[2]])
    for part in data.draw(st.lists(texts | parts, min_size=1, max_size=12)):
        expected = sorted(identifier for identifier, name in made.items() if part.casefold() in name.casefold())
        assert found(store, part) == expected, part
    assert kept(store) == wanted(store)


def test_every_order_is_the_same_whether_looked_up_or_walked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(0)
    for number in range(40):
        identifier = store.create({"name": f"{chance.choice('abc')}{number} tail", "tags": {"k": str(number % 3)}}).id
        result = json.dumps({"test_accuracy": chance.randint(1, 5) / 10}) if number % 4 else None
        store.set(identifier, result=result, status=chance.choice(["succeeded", "failed"]), verdict=chance.choice("vw"))
    for filters in (
        Filters(name="A"),
        Filters(name="1 tail", status=Status.FAILED),
        Filters(name="b", verdict="v", tags={"k": "1"}),
        Filters(name="tail", owner="nobody"),
        Filters(name="tail", sweep="none"),
    ):
        for sort in SORTS:
            ways = []
            for few in (1000, -1):
                monkeypatch.setattr(names, "_FEW", few)
                after, pages = None, []
                while places := store.read(listing.page, filters, sort, after, 3):
                    pages.append(places)
                    after = places[-1]
                ways.append([place.id for places in pages for place in places])
            assert ways[0] == ways[1], (filters, sort)


def test_parts_come_and_go_with_names(store: Store) -> None:
    first, second, third = (store.create({"name": name}).id for name in (NAME, NAME + " x", "x"))
    store.create()
    assert kept(store) == wanted(store) != set()
    store.write(experiments.change, first, {"name": "ẞ" * 40})
    store.write(experiments.change, second, {"name": None})
    store.write(experiments.change, third, {"notes": "the name stays"})
    assert kept(store) == wanted(store) != set()
    store.write(experiments.remove, first)
    store.set(third, status="succeeded", finished_at=0.0)
    assert kept(store) == wanted(store) != set()
    assert store.write(retention.delete_old, 1.0) == 1
    assert kept(store) == set()


def test_so_they_do_with_those_of_sweeps_and_of_runs(store: Store) -> None:
    group = Group(new_sweep_id(), "sweep", {}, {})
    members = [Member(Spec(name=f"{NAME} {number}" if number else None), {}) for number in range(5)]
    store.write(sweeps.create, group)
    store.write(experiments.create_members, group.id, members, 1)
    store.write(runs.create, WatchedSpec.model_validate(LOOP), 60.0, new_experiment_id(), "request", None)
    assert kept(store) == wanted(store)
    assert (len(found(store, "47, learning")), len(found(store, "A LOOP"))) == (4, 1)
    store.write(sweeps.remove, group.id, "sweep")
    assert {part for part, _ in kept(store)} == {"a loop", "loop", "op"}


def test_two_who_rename_and_one_who_deletes_at_once_leave_what_is_true(store: Store) -> None:
    made = [store.create({"name": NAME}).id for _ in range(10)]

    def rename(number: int) -> None:
        with contextlib.suppress(ExperimentNotFound):
            store.write(experiments.change, made[number % 10], {"name": f"{number} " * (1 + number % 7)})

    def remove(number: int) -> None:
        store.write(experiments.remove, made[number])

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(rename, number) for number in range(60)]
        waiting += [pool.submit(remove, number) for number in range(0, 10, 3)]
        for one in waiting:
            one.result()
    assert len({identifier for _, identifier in kept(store)}) == 6
    assert kept(store) == wanted(store)


def test_what_an_older_release_wrote_is_found_at_once_and_made_up_for(store: Store) -> None:
    mine, renamed, unnamed = (store.create({"name": NAME}).id for _ in range(3))
    theirs = store.create().id
    as_theirs = {theirs: "Größe 47", renamed: "größer", unnamed: None}
    for identifier, name in as_theirs.items():
        store.set(identifier, name=name, folded_name=name and name.casefold())

    def all_is_found() -> bool:
        return [found(store, "GRÖSSE"), found(store, "depth 47"), found(store, "47")] == [
            sorted([theirs, renamed]),
            [mine],
            sorted([mine, theirs]),
        ]

    assert all_is_found()
    assert kept(store) != wanted(store)
    assert [store.write(names.mend, 2) for _ in range(3)] == [2, 1, 0]
    assert kept(store) == wanted(store)
    assert all_is_found()


def test_many_that_an_older_release_wrote_are_walked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_FEW", 2)
    theirs = [store.create().id for _ in range(3)]
    for number, identifier in enumerate(theirs):
        store.set(identifier, name=f"{NAME} {number}", folded_name=f"{NAME} {number}")
    assert found(store, "more 1") == [theirs[1]]


def test_what_is_there_is_taken_in_by_the_migration(empty_database_url: str) -> None:
    url = make_url(empty_database_url)
    migrate.upgrade(url)
    store = Store(Database(url))
    for name in (NAME, NAME, "x", "Größe \U0001f600\U0001f600 1", None, "ab" * 100):
        store.create({"name": name} if name else {})
    before = kept(store)
    migrate.downgrade(url, "0012")
    migrate.upgrade(url)
    assert kept(store) == before == wanted(store)
    assert store.write(names.mend, 10) == 0
    assert len(found(store, "RATE 0.01")) == 2
    store.database.close()


def test_what_is_kept_is_looked_up(database: Database) -> None:
    """Counted, read and taken away by the key, whatever the order."""
    store = Store(database)
    store.create({"name": NAME})
    for sort in SORTS:
        counted, *pages = plan(database, listing.page, Filters(name="rate"), sort, None, 10)
        for steps in (counted, *pages):
            assert sum(_is_looked_up(step) for step in steps) == 2, steps
            assert not any(step.startswith("SCAN experiments") and "unsearched" not in step for step in steps), steps
    _locked, taken, *_ = plan(database, names.forget, table.c.name == NAME)
    assert any(_is_looked_up(step) for step in taken), taken


def _is_looked_up(step: str) -> bool:
    step = step.replace("using pk_name_parts", "on pk_name_parts")
    return "SEARCH name_parts USING PRIMARY KEY (part" in step or "on pk_name_parts" in step
