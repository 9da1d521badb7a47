"""As many workers as are asked for: `docker compose up --scale worker=3`."""

import time
from collections.abc import Iterator

import httpx
import pytest

from tests.compose.containers import SPEC, Stack, run, run_command, until_ended

pytestmark = pytest.mark.compose

WORKERS = 3
#: Half a minute's training, with as many at once.
LONG = 12_000


@pytest.fixture
def workers(stack: Stack) -> Iterator[set[str]]:
    """The host names of three workers, healthy; afterwards there is one again."""
    stack.compose("up", "-d", "--no-recreate", "--scale", f"worker={WORKERS}", "worker")
    deadline = time.monotonic() + 180
    while [one["State"]["Health"]["Status"] for one in stack.containers("worker").values()] != ["healthy"] * WORKERS:
        assert time.monotonic() < deadline, stack.logs()
        time.sleep(1)
    yield set(stack.containers("worker"))
    stack.compose("up", "-d", "--no-recreate", "--scale", "worker=1", "worker")
    stack.wait_until_healthy(seconds=180)


def test_scaled_workers_share_the_work_and_one_that_is_killed_loses_nothing(
    api: httpx.Client, stack: Stack, workers: set[str]
) -> None:
    # Each of another shape: of one shape a worker would take along what waits, and train it beside.
    specs = [
        {
            **SPEC,
            "network": {**SPEC["network"], "width": width},
            "training": {**SPEC["training"], "iterations": LONG, "seed": 1},
        }
        for width in range(10, 10 + WORKERS)
    ]
    identifiers = [str(api.post("/experiments", json=spec).json()["id"]) for spec in specs]
    deadline = time.monotonic() + 120
    while not all(api.get(f"/experiments/{one}").json()["progress"]["iteration"] for one in identifiers):
        assert time.monotonic() < deadline, stack.logs()
        time.sleep(0.5)
    holders = {one: stack.query(f"SELECT lease_owner FROM experiments WHERE id = '{one}'") for one in identifiers}
    at = {one: worker.partition(":")[0] for one, worker in holders.items()}
    assert set(at.values()) == workers, "each runs in a container of its own"
    assert_connections_are_few(stack, "worker", 5)

    run_command(["docker", "kill", at[identifiers[0]]])
    ended = [until_ended(api, stack, one) for one in identifiers]
    assert [one["status"] for one in ended] == ["succeeded"] * WORKERS, ended
    assert [one["attempt"] for one in ended] == [2, *[1] * (WORKERS - 1)]
    assert ended[0]["provenance"]["worker"].partition(":")[0] in workers - {at[identifiers[0]]}
    undisturbed = run(api, stack, specs[0])
    assert (undisturbed["status"], undisturbed["attempt"]) == ("succeeded", 1)
    for part in ("metrics", "gradients"):
        documents = [api.get(f"/experiments/{one['id']}/{part}").json() for one in (ended[0], undisturbed)]
        assert documents[0]["steps"] == list(range(LONG))
        for document in documents:
            del document["experiment_id"]
            document.get("metrics", {}).pop("seconds_per_iteration", None)
        assert documents[0] == documents[1], "the one whose worker was killed measured what the other did"


def assert_connections_are_few(stack: Stack, service: str, most: int) -> None:
    """Each container of the service holds at most so many connections to the database."""
    rows = stack.query(
        "SELECT host(client_addr), count(*) FROM pg_stat_activity WHERE client_addr IS NOT NULL GROUP BY 1"
    )
    held = dict(row.split("|") for row in rows.splitlines())
    for name, container in stack.containers(service).items():
        address = container["NetworkSettings"]["Networks"][f"{stack.project}_backend"]["IPAddress"]
        assert 1 <= int(held[address]) <= most, (name, held)
