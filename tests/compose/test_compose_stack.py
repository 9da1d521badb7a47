"""The containers of docker-compose.yml for real: built, brought up under a project name and port of their own, put to
work, restarted, and removed with their volumes whatever happens.
"""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gradprobe.settings import Settings

pytestmark = pytest.mark.compose

ROOT = Path(__file__).resolve().parents[2]
FILES = (ROOT / "docker-compose.yml", Path(__file__).with_name("docker-compose.build.yml"))
LONG_RUNNING = ("postgres", "redis", "service", "worker")
ONE_SHOT = ("prepare", "migrate")
MNIST = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
PROCESS = re.compile(r"^(Uid|CapEff|NoNewPrivs):\s+(\S+)", re.MULTILINE)
ITERATIONS = 60
#: The default, which the stack keeps.
LEASE_SECONDS = 30
SPEC = {
    "name": "compose",
    "dataset": {"name": "mnist"},
    "network": {"kind": "mlp", "depth": 3, "width": 10},
    "training": {"iterations": ITERATIONS, "batch_size": 30, "device": "cpu"},
    "recording": {"every": 1, "histograms_every": 20},
}
LAYER_SIZES = [784 * 10, 10 * 10, 10 * 10]


class NoEngine(Exception):
    """Containers can't be run on this machine; the message says what is missing."""


def find_compose() -> list[str]:
    """The compose command of this machine, Compose v2 rather than docker-compose.

    Raises:
        NoEngine: there is none, or no engine for it to speak to.
    """
    if shutil.which("docker") is None:
        raise NoEngine("there is no `docker` command; install Docker")
    info = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    if info.returncode != 0:
        raise NoEngine(f"no Docker engine answers; start it ({info.stderr.strip().splitlines()[-1]})")
    version = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if version.returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose") is not None:
        return ["docker-compose"]
    raise NoEngine("there is neither `docker compose` nor `docker-compose`; install Docker's compose plugin")


@dataclass(frozen=True)
class Stack:
    """One project of containers."""

    command: tuple[str, ...]
    project: str
    port: int
    datasets: Path

    @property
    def url(self) -> str:
        """Where the API is published."""
        return f"http://127.0.0.1:{self.port}"

    def compose(self, *arguments: str) -> str:
        """Run the compose command on this project; its standard output."""
        files = [argument for file in FILES for argument in ("-f", str(file))]
        # What the caller has set for a stack of their own (its project, its files, its profiles) stays out of this one.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("COMPOSE_")}
        environment = kept | {"GRADPROBE_PORT": str(self.port), "GRADPROBE_DATASETS": str(self.datasets)}
        return _run([*self.command, "-p", self.project, *files, *arguments], environment)

    def container(self, service: str) -> str:
        """The id of a service's container, running or not."""
        return self.compose("ps", "-a", "-q", service).strip()

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine knows of a service's container."""
        description: dict[str, Any] = json.loads(_run(["docker", "inspect", self.container(service)]))[0]
        return description

    def execute(self, service: str, *arguments: str) -> str:
        """Run a command in a service's container, as the user that the service runs as; its standard output."""
        return _run(["docker", "exec", self.container(service), *arguments])

    def query(self, sql: str) -> str:
        """The rows of a query, a line each, columns separated by |, read by psql inside the database's container."""
        return self.execute("postgres", "psql", "-U", "gradprobe", "-d", "gradprobe", "-XAtc", sql).strip()

    def wait_until_healthy(self, seconds: float) -> None:
        """Wait until every long-running service is healthy and the API is ready on its published port."""
        deadline = time.monotonic() + seconds
        while unhealthy := {name: state for name in LONG_RUNNING if (state := self._health(name)) != "healthy"}:
            assert time.monotonic() < deadline, f"not healthy after {seconds} s: {unhealthy}\n{self.logs()}"
            time.sleep(1)
        answer = httpx.get(f"{self.url}/readyz", trust_env=False)
        assert answer.status_code == httpx.codes.OK, f"{answer.text}\n{self.logs()}"

    def logs(self) -> str:
        """The last lines of every container."""
        return self.compose("logs", "--no-color", "--tail=40")

    def _health(self, service: str) -> str:
        container = self.container(service)
        if not container:
            return "not created"
        state = json.loads(_run(["docker", "inspect", container]))[0]["State"]
        return str(state["Health"]["Status"]) if state["Running"] and "Health" in state else str(state["Status"])


def _run(command: list[str], environment: dict[str, str] | None = None) -> str:
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    assert finished.returncode == 0, f"{' '.join(command)} exited with {finished.returncode}:\n" + "\n".join(
        [*finished.stdout.splitlines()[-40:], *finished.stderr.splitlines()[-40:]]
    )
    return finished.stdout


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack, built from this tree, healthy; removed with its volumes whatever happens."""
    try:
        command = find_compose()
    except NoEngine as reason:
        pytest.skip(f"the containers were NOT tested: {reason}")
    datasets = tmp_path_factory.mktemp("datasets")
    _copy_mnist(datasets)
    running = Stack(tuple(command), f"gradprobe-test-{secrets.token_hex(4)}", _free_port(), datasets)
    try:
        running.compose("build", "migrate", "service", "worker")
        running.compose("up", "-d")
        running.wait_until_healthy(seconds=180)
        yield running
    finally:
        running.compose("down", "--volumes", "--remove-orphans")


@pytest.fixture
def api(stack: Stack) -> Iterator[httpx.Client]:
    """Speaks to the published port."""
    with httpx.Client(base_url=stack.url, timeout=40, trust_env=False) as client:
        yield client


def _copy_mnist(target: Path) -> None:
    """Copies what `python -m worker.data` has cached; without it the worker fetches the files itself."""
    cache = Settings().dataset_cache / "mnist"
    target.chmod(0o755)  # read in the container by another user
    if all((cache / name).is_file() for name in MNIST):
        for name in MNIST:
            shutil.copyfile(cache / name, target / name)
            (target / name).chmod(0o644)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


def run(api: httpx.Client, stack: Stack, spec: dict[str, Any], seconds: float = 180) -> dict[str, Any]:
    """Post a spec and wait until the experiment has ended; the experiment."""
    accepted = api.post("/experiments", json=spec)
    assert accepted.status_code == httpx.codes.ACCEPTED, accepted.text
    experiment: dict[str, Any] = accepted.json()
    deadline = time.monotonic() + seconds
    while experiment["status"] in {"queued", "running"}:
        assert time.monotonic() < deadline, f"{experiment}\n{stack.logs()}"
        experiment = api.get(f"/experiments/{experiment['id']}", params={"wait": 5}).json()
    return experiment


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
    _run(["docker", "network", "disconnect", network, worker])
    try:
        time.sleep(LEASE_SECONDS + 10)
        assert api.get("/readyz").status_code == httpx.codes.OK
        assert api.get(f"/experiments/{identifier}").json()["status"] == "running"
    finally:
        _run(["docker", "network", "connect", network, worker])
    found = {"status": "running"}
    deadline = time.monotonic() + 300
    while found["status"] in {"queued", "running"}:
        assert time.monotonic() < deadline, f"{found}\n{stack.logs()}"
        found = api.get(f"/experiments/{identifier}", params={"wait": 5}).json()
    assert found["status"] == "succeeded", found
    steps = api.get(f"/experiments/{identifier}/metrics").json()["steps"]
    assert steps == list(range(20_000))
