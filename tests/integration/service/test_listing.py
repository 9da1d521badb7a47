"""Lists: filters, pages, cursors."""

import base64
import json

import httpx
import pytest

from gradprobe import Client
from gradprobe.cli.app import run
from gradprobe.resources import ExperimentPage
from gradprobe.store.database import Database
from gradprobe.store.listing import Filters, Sort
from service import pagination
from tests.integration.service import measured
from tests.integration.service.problem_shape import assert_problem
from tests.integration.store.transactions import Store


def create(client: httpx.Client, name: str | None = None, **tags: str) -> str:
    return str(client.post("/experiments", json={"name": name, "tags": tags}).json()["id"])


def listed(client: httpx.Client, query: str = "") -> list[str]:
    response = client.get(f"/experiments{query}")
    assert response.status_code == 200, response.text
    return [item.id for item in ExperimentPage.model_validate_json(response.content).items]


def test_the_newest_comes_first_and_every_page_follows_the_one_before(client: httpx.Client) -> None:
    created = [create(client) for _ in range(5)]
    url: str | None = "/experiments?limit=2"
    seen: list[str] = []
    sizes: list[int] = []
    while url:
        response = client.get(url)
        page = response.json()
        seen += [item["id"] for item in page["items"]]
        sizes.append(len(page["items"]))
        url = response.links["next"]["url"] if "next" in response.links else None
        assert (url is None) == (page["next_cursor"] is None)
        create(client, "arrives while paging")

    assert sizes == [2, 2, 1]
    assert seen == sorted(created, reverse=True)


def test_a_page_that_is_just_full_is_the_last(client: httpx.Client) -> None:
    created = [create(client) for _ in range(2)]

    page = client.get("/experiments?limit=2").json()

    assert [item["id"] for item in page["items"]] == sorted(created, reverse=True)
    assert page["next_cursor"] is None


def test_filters_narrow_the_list(client: httpx.Client, database: Database) -> None:
    plain = create(client, "Sigmoid 100%_baseline", course="a:b", kind="x")
    other = create(client, "relu", course="a:b")
    measured.claim(database, other)

    assert listed(client, "?status=running") == [other]
    assert listed(client, "?status=queued") == [plain]
    assert listed(client, "?tag=course:a:b") == sorted([plain, other], reverse=True)
    assert listed(client, "?tag=course:a:b&tag=kind:x") == [plain]
    assert listed(client, "?tag=course:a") == []
    assert listed(client, "?name=sIGMOID") == [plain]
    assert listed(client, "?name=%25_") == [plain]
    assert listed(client, "?name=100_") == []
    assert listed(client, "?verdict=vanishing") == []


def test_the_cursor_keeps_the_filters(client: httpx.Client) -> None:
    wanted = [create(client, "wanted") for _ in range(3)]
    create(client, "other")

    first = client.get("/experiments", params={"name": "wanted", "limit": 2})
    second = client.get(first.links["next"]["url"])

    assert [item["id"] for item in second.json()["items"]] == [min(wanted)]


def encoded(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "ä", "!!!!", "AAAA", encoded([]), encoded(["exp_0", "0"]), encoded({"a": 1}), encoded("ab"), encoded(7)],
)
def test_a_cursor_that_no_list_made_is_refused(client: httpx.Client, cursor: str) -> None:
    body = assert_problem(client.get("/experiments", params={"cursor": cursor}), 422, "INVALID_CURSOR")

    assert body["errors"][0]["pointer"] == "/query/cursor"


def test_a_cursor_of_other_filters_is_refused(client: httpx.Client) -> None:
    for _ in range(2):
        create(client, course="a")
    cursor = client.get("/experiments?limit=1&tag=course:a").json()["next_cursor"]

    assert len(listed(client, f"?limit=1&tag=course:a&cursor={cursor}")) == 1
    assert_problem(client.get(f"/experiments?limit=1&cursor={cursor}"), 422, "INVALID_CURSOR")


def test_the_padding_of_base64_is_not_asked_for(client: httpx.Client) -> None:
    for _ in range(2):
        create(client)
    cursor = client.get("/experiments?limit=1").json()["next_cursor"]

    assert "=" not in cursor
    assert len(listed(client, f"?limit=1&cursor={cursor}")) == 1


def test_the_list_is_sorted_and_its_pages_go_on_in_that_order(client: httpx.Client) -> None:
    names = ["delta", "Bravo", "charlie", "alpha", "echo"]
    for name in [*names, None]:
        create(client, name)
    for sort, wanted in (("name", sorted(names, key=str.casefold)), ("-name", sorted(names, key=str.casefold)[::-1])):
        url: str | None = f"/experiments?limit=2&sort={sort}"
        found: list[str | None] = []
        while url:
            response = client.get(url)
            found += [item["name"] for item in response.json()["items"]]
            url = response.links["next"]["url"] if "next" in response.links else None
        assert found == [*wanted, None]


def test_by_accuracy_the_best_first_and_the_unknown_last(client: httpx.Client, database: Database) -> None:
    made = [create(client) for _ in range(3)]
    for identifier, accuracy in ((made[0], 0.5), (made[2], 0.75)):
        result = {"final_loss": None, "train_accuracy": None, "test_accuracy": accuracy, "test_loss": None}
        Store(database).set(identifier, result=json.dumps(result | {"seconds": 1.0, "iterations_per_second": 1.0}))
    assert listed(client, "?sort=-accuracy") == [made[2], made[0], made[1]]
    first = client.get("/experiments?sort=accuracy&limit=1").json()
    assert listed(client, f"?sort=accuracy&cursor={first['next_cursor']}") == [made[2], made[1]]


def test_a_cursor_belongs_to_its_order(client: httpx.Client) -> None:
    for name in ("x" * 200, "\N{GREEK SMALL LETTER IOTA WITH DIALYTIKA AND TONOS}" * 200, "b"):
        create(client, name)
    cursor = client.get("/experiments?sort=name&limit=2").json()["next_cursor"]
    assert len(cursor) < 2000
    assert len(listed(client, f"?sort=name&cursor={cursor}")) == 1
    for other in ("", "&sort=-name", "&sort=status"):
        assert_problem(client.get(f"/experiments?cursor={cursor}{other}"), 422, "INVALID_CURSOR")


@pytest.mark.parametrize("value", [True, 7, [], {}, "a\0", "\ud800", ["x"], float("nan")])
@pytest.mark.parametrize("sort", ["name", "accuracy", "created"])
def test_a_cursor_whose_value_no_order_has_is_refused(client: httpx.Client, sort: Sort, value: object) -> None:
    forged = encoded([f"exp_{'0' * 26}", pagination._fingerprint(Filters(), sort), value])
    assert_problem(client.get(f"/experiments?sort={sort}&cursor={forged}"), 422, "INVALID_CURSOR")


def test_an_order_that_there_is_not_is_refused(client: httpx.Client) -> None:
    body = assert_problem(client.get("/experiments?sort=loss"), 422, "VALIDATION_FAILED")
    assert body["errors"][0]["pointer"] == "/query/sort"


def test_the_client_and_the_command_line_ask_for_an_order(
    client: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("b", "c", "a"):
        client.post("/experiments", json={"name": name})
    with Client(str(client.base_url)) as ours:
        assert [one.name for one in ours.list(sort="name")] == ["a", "b", "c"]
        assert [one.name for one in ours.list(sort="-name", limit=2)] == ["c", "b"]
    assert run(["--url", str(client.base_url), "list", "--sort", "name", "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == ["a", "b", "c"]
