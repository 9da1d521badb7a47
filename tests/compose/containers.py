"""The containers of docker-compose.yml as one project: found, spoken to, and what is known of them."""

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
FILES = (ROOT / "docker-compose.yml", Path(__file__).with_name("docker-compose.build.yml"))
LONG_RUNNING = ("postgres", "redis", "service", "worker")
MNIST = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
ITERATIONS = 60
SPEC: dict[str, Any] = {
    "name": "compose",
    "dataset": {"name": "mnist"},
    "network": {"kind": "mlp", "depth": 3, "width": 10},
    "training": {"iterations": ITERATIONS, "batch_size": 30, "device": "cpu"},
    "recording": {"every": 1, "histograms_every": 20},
}


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
        return run_command([*self.command, "-p", self.project, *files, *arguments], environment)

    def container(self, service: str) -> str:
        """The id of a service's one container, running or not."""
        return self.compose("ps", "-a", "-q", service).strip()

    def containers(self, service: str) -> dict[str, dict[str, Any]]:
        """What the engine knows of each of a service's containers, by its host name."""
        identifiers = self.compose("ps", "-a", "-q", service).split()
        found: list[dict[str, Any]] = json.loads(run_command(["docker", "inspect", *identifiers]))
        return {description["Config"]["Hostname"]: description for description in found}

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine knows of a service's container."""
        description: dict[str, Any] = json.loads(run_command(["docker", "inspect", self.container(service)]))[0]
        return description

    def execute(self, service: str, *arguments: str) -> str:
        """Run a command in a service's container, as the user that the service runs as; its standard output."""
        return run_command(["docker", "exec", self.container(service), *arguments])

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
        state = json.loads(run_command(["docker", "inspect", container]))[0]["State"]
        return str(state["Health"]["Status"]) if state["Running"] and "Health" in state else str(state["Status"])


def run_command(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Run it to its end, which must be a good one; its standard output."""
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    assert finished.returncode == 0, f"{' '.join(command)} exited with {finished.returncode}:\n" + "\n".join(
        [*finished.stdout.splitlines()[-40:], *finished.stderr.splitlines()[-40:]]
    )
    return finished.stdout


def run(api: httpx.Client, stack: Stack, spec: dict[str, Any]) -> dict[str, Any]:
    """Post a spec and wait until the experiment has ended; the experiment."""
    accepted = api.post("/experiments", json=spec)
    assert accepted.status_code == httpx.codes.ACCEPTED, accepted.text
    return until_ended(api, stack, accepted.json()["id"])


def until_ended(api: httpx.Client, stack: Stack, identifier: str, seconds: float = 300) -> dict[str, Any]:
    """The experiment, once it has ended."""
    deadline = time.monotonic() + seconds
    while True:
        found: dict[str, Any] = api.get(f"/experiments/{identifier}", params={"wait": 5}).json()
        if found["status"] not in {"queued", "running"}:
            return found
        assert time.monotonic() < deadline, f"{found}\n{stack.logs()}"
