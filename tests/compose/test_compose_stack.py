"""The containers of docker-compose.yml for real: built, brought up under a project name and port of their own, put to
work, restarted, and removed with their volumes whatever happens.
"""

import json
import re
import time
from typing import Any

import httpx
import pytest

from tests.compose.containers import ITERATIONS, LONG_RUNNING, SPEC, Stack, run, run_command, until_ended

pytestmark = pytest.mark.compose

ONE_SHOT = ("prepare", "migrate")
PROCESS = re.compile(r"^(Uid|CapEff|NoNewPrivs):\s+(\S+)", re.MULTILINE)
#: The default, which the stack keeps.
LEASE_SECONDS = 30
LAYER_SIZES = [784 * 10, 10 * 10, 10 * 10]


@pytest.mark.parametrize("service", ONE_SHOT)
def test_one_shot_services_have_succeeded(stack: Stack, service: str) -> None:
    state = stack.inspect(service)["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 0)


def test_only_the_api_is_published_and_only_on_loopback(stack: Stack) -> None:
    published = {
        service: [binding for bindings in ports.values() for binding in bindings or []]
        for service in LONG_RUNNING
        if (ports := stack.inspect(service)["NetworkSettings"]["Ports"])
    }
    assert {service: bindings for service, bindings in published.items() if bindings} == {
        "service": [{"HostIp": "127.0.0.1", "HostPort": str(stack.port)}]
    }


@pytest.mark.parametrize("service", LONG_RUNNING)
def test_no_process_is_root_or_can_become_it(stack: Stack, service: str) -> None:
    status = PROCESS.findall(stack.execute(service, "sh", "-c", "cat /proc/[0-9]*/status"))
    values = {name: {value for found, value in status if found == name} for name in ("Uid", "CapEff", "NoNewPrivs")}
    assert values["Uid"]
    assert "0" not in values["Uid"]
    assert values["CapEff"] == {"0000000000000000"}
    assert values["NoNewPrivs"] == {"1"}


@pytest.mark.parametrize("service", LONG_RUNNING)
def test_the_root_file_system_is_read_only(stack: Stack, service: str) -> None:
    options = stack.execute(service, "sh", "-c", "grep ' / ' /proc/mounts").split()[3].split(",")
    assert "ro" in options


@pytest.mark.parametrize("service", LONG_RUNNING)
def test_each_process_reads_its_own_passwords_only(stack: Stack, service: str) -> None:
    script = "for f in /run/secrets/*; do cat $f >/dev/null 2>&1 && basename $f; done; true"
    readable = {
        "postgres": {"database_password"},
        "redis": {"redis_password"},
    }.get(service, {"database_password", "redis_password"})
    assert set(stack.execute(service, "sh", "-c", script).split()) == readable


def test_passwords_are_in_no_container_description(stack: Stack) -> None:
    passwords = [
        stack.execute("service", "cat", f"/run/secrets/{name}") for name in ("database_password", "redis_password")
    ]
    assert len(set(passwords)) == len(passwords)
    for service in (*LONG_RUNNING, *ONE_SHOT):
        description = json.dumps(stack.inspect(service))
        assert not any(password in description for password in passwords), service


def test_the_broker_and_the_database_want_a_password(stack: Stack) -> None:
    assert "NOAUTH" in stack.execute("redis", "redis-cli", "ping")
    refused = stack.execute("postgres", "sh", "-c", "psql -wh 127.0.0.1 -U gradprobe -c 'SELECT 1' 2>&1 || true")
    assert "no password supplied" in refused


@pytest.mark.parametrize(("service", "expected"), [("service", "False"), ("worker", "True")])
def test_only_the_worker_has_torch(stack: Stack, service: str, expected: str) -> None:
    probe = "import importlib.util; print(importlib.util.find_spec('torch') is not None)"
    assert stack.execute(service, "python", "-c", probe).strip() == expected


def test_another_container_needs_a_key(stack: Stack) -> None:
    probe = (
        "import urllib.error, urllib.request\n"
        "try: print(urllib.request.urlopen('http://service:8000/experiments').status)\n"
        "except urllib.error.HTTPError as error: print(error.code)"
    )
    assert stack.execute("worker", "python", "-c", probe).strip() == "401"
    assert httpx.get(f"{stack.url}/experiments", trust_env=False).status_code == httpx.codes.OK


@pytest.fixture(scope="module")
def experiment(stack: Stack) -> dict[str, Any]:
    """One finished experiment on MNIST."""
    with httpx.Client(base_url=stack.url, timeout=40, trust_env=False) as api:
        return run(api, stack, SPEC)


def test_succeeds(experiment: dict[str, Any]) -> None:
    assert experiment["status"] == "succeeded", experiment["error"]
    assert experiment["progress"] == {"iteration": ITERATIONS, "iterations": ITERATIONS}


def test_every_gradient_comes_back(api: httpx.Client, experiment: dict[str, Any]) -> None:
    answer = api.get(f"/experiments/{experiment['id']}/gradients", params={"statistics": "mean_abs"}).json()
    assert answer["steps"] == list(range(ITERATIONS))
    assert [layer["size"] for layer in answer["layers"]] == LAYER_SIZES
    for layer in answer["layers"]:
        values = layer["statistics"]["mean_abs"]
        assert len(values) == ITERATIONS
        assert all(value > 0 for value in values)


def test_histograms_count_every_element_once(api: httpx.Client, experiment: dict[str, Any]) -> None:
    answer = api.get(f"/experiments/{experiment['id']}/gradients/histograms").json()
    assert answer["steps"] == list(range(0, ITERATIONS, 20))
    for layer, size in zip(answer["layers"], LAYER_SIZES, strict=True):
        totals = [
            sum(counts) + zero + nonfinite
            for counts, zero, nonfinite in zip(layer["counts"], layer["zero"], layer["nonfinite"], strict=True)
        ]
        assert totals == [size] * len(answer["steps"])


def test_rows_are_in_postgresql(stack: Stack, experiment: dict[str, Any]) -> None:
    identifier = experiment["id"]
    assert stack.query(f"SELECT status, attempt FROM experiments WHERE id = '{identifier}'") == "succeeded|1"
    covered = stack.query(
        "SELECT min(first_step), max(last_step) FROM blocks WHERE statistics IS NOT NULL"
        f" AND level = 0 AND tensor = 'weight_gradients' AND experiment_id = '{identifier}'"
    )
    assert covered == f"0|{ITERATIONS - 1}"


def test_a_restart_loses_nothing(api: httpx.Client, stack: Stack, experiment: dict[str, Any]) -> None:
    path = f"/experiments/{experiment['id']}/gradients"
    before = api.get(path).json()
    stack.compose("restart")
    stack.wait_until_healthy(seconds=180)
    assert api.get(path).json() == before
    assert run(api, stack, SPEC)["status"] == "succeeded"


def test_a_worker_cut_off_from_the_network_does_no_harm(api: httpx.Client, stack: Stack) -> None:
    """For longer than its lease. Nobody tells it: packets just stop, which only TCP's own patience notices."""
    long = {**SPEC, "training": {**SPEC["training"], "iterations": 20_000}}
    identifier = api.post("/experiments", json=long).json()["id"]
    deadline = time.monotonic() + 60
    while api.get(f"/experiments/{identifier}").json()["progress"]["iteration"] == 0:
        assert time.monotonic() < deadline, stack.logs()
        time.sleep(0.5)
    network, worker = f"{stack.project}_backend", stack.container("worker")
    run_command(["docker", "network", "disconnect", network, worker])
    try:
        time.sleep(LEASE_SECONDS + 10)
        assert api.get("/readyz").status_code == httpx.codes.OK
        assert api.get(f"/experiments/{identifier}").json()["status"] == "running"
    finally:
        run_command(["docker", "network", "connect", network, worker])
    found = until_ended(api, stack, identifier)
    assert found["status"] == "succeeded", found
    steps = api.get(f"/experiments/{identifier}/metrics").json()["steps"]
    assert steps == list(range(20_000))
