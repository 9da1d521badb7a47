"""docker-compose.yml and Dockerfile, read as text: what must hold of every container, on any machine."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")

ONE_SHOT = {"prepare", "migrate"}
LONG_RUNNING = sorted(SERVICES.keys() - ONE_SHOT)
APPLICATIONS = ["migrate", "service", "worker", "worker-gpu"]
BACKEND = ["postgres", "redis", "migrate"]


def test_every_part_is_there() -> None:
    assert set(SERVICES) == {"prepare", "postgres", "redis", "migrate", "service", "worker", "worker-gpu"}


def test_both_generations_of_compose_read_the_file() -> None:
    """docker-compose 1.29 knows no `name:`; Compose v2 warns of `version:`."""
    top = {key for key in COMPOSE if not key.startswith("x-")}
    assert top == {"services", "networks", "volumes"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_container_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert service["pids_limit"] > 0
    assert "privileged" not in service


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - {"prepare"}))
def test_no_container_but_prepare_is_root_or_has_a_capability(name: str) -> None:
    service = SERVICES[name]
    assert str(service["user"]).split(":")[0] not in {"0", "root"}
    assert "cap_add" not in service


def test_prepare_has_no_network_and_ends() -> None:
    prepare = SERVICES["prepare"]
    assert prepare["network_mode"] == "none"
    assert prepare["restart"] == "no"
    assert set(prepare["cap_add"]) == {"CHOWN", "DAC_OVERRIDE"}


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_long_running_services_are_watched_and_restarted(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert service["restart"] == "unless-stopped"
    assert re.fullmatch(r"[1-9]\d*s", service["stop_grace_period"])


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_dependencies_wait_for_health_or_success(name: str) -> None:
    for dependency, wanted in SERVICES[name].get("depends_on", {}).items():
        expected = "service_completed_successfully" if dependency in ONE_SHOT else "service_healthy"
        assert wanted == {"condition": expected}


@pytest.mark.parametrize("name", ["service", "worker", "worker-gpu"])
def test_nothing_starts_before_the_tables_of_its_version(name: str) -> None:
    assert SERVICES[name]["depends_on"].keys() >= {"postgres", "redis", "migrate"}


def test_only_the_api_is_published_and_only_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"service": ["127.0.0.1:${GRADPROBE_PORT:-8000}:8000"]}


def test_no_key_is_asked_for_only_because_nobody_else_gets_in() -> None:
    """The setting claims what `ports` has to keep: whoever changes the one must change the other."""
    environment = SERVICES["service"]["environment"]
    assert environment["GRADPROBE_AUTHENTICATION"] == "${GRADPROBE_AUTHENTICATION:-loopback_in_front}"
    assert all(port.startswith("127.0.0.1:") for port in SERVICES["service"]["ports"])
    assert "GRADPROBE_AUTHENTICATION" not in COMPOSE["x-environment"]


@pytest.mark.parametrize("name", BACKEND)
def test_database_and_broker_are_on_the_internal_network_alone(name: str) -> None:
    assert SERVICES[name]["networks"] == ["backend"]
    assert COMPOSE["networks"]["backend"] == {"internal": True}


def test_no_password_is_written_down() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if "PASSWORD" in variable:
                assert variable.endswith("_FILE"), f"{name}: {variable}"
            assert not re.search(r"://[^/@]*:[^/@]+@", str(value)), f"{name}: {variable}"


@pytest.mark.parametrize("name", [*APPLICATIONS, "postgres", "redis"])
def test_secrets_are_mounted_read_only(name: str) -> None:
    mounts = [volume for volume in SERVICES[name]["volumes"] if isinstance(volume, dict)]
    assert {"type": "volume", "source": "secrets", "target": "/run/secrets", "read_only": True} in mounts


def test_every_named_volume_is_declared() -> None:
    used = {
        volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
    }
    assert {source for source in used if not source.startswith((".", "$"))} == set(COMPOSE["volumes"])


def test_workers_read_data_sets_and_cannot_change_them() -> None:
    for name in ("worker", "worker-gpu"):
        assert "${GRADPROBE_DATASETS:-./datasets}:/datasets:ro" in SERVICES[name]["volumes"]
        assert SERVICES[name]["environment"]["GRADPROBE_DATASETS_DIRECTORY"] == "/datasets"


def test_the_queues_of_the_two_kinds_of_worker() -> None:
    queues = {
        name: next(part for part in SERVICES[name]["command"] if part.startswith("--queues="))
        for name in ("worker", "worker-gpu")
    }
    assert queues == {"worker": "--queues=any,cpu", "worker-gpu": "--queues=any,gpu"}
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]
    assert "profiles" not in SERVICES["worker"]


@pytest.mark.parametrize("name", ["worker", "worker-gpu"])
def test_there_can_be_several_of_a_worker(name: str) -> None:
    """`up --scale worker=4`: nothing is given that only one can have, and what they all write is the cache alone."""
    service = SERVICES[name]
    assert not service.keys() & {"container_name", "hostname", "ports", "network_mode"}
    assert isinstance(service["networks"], list), "no address of its own"
    assert not any(part.startswith(("--hostname", "-n", "--pidfile", "--statedb")) for part in service["command"])
    volumes = [volume for volume in service["volumes"] if isinstance(volume, str)]
    assert [volume for volume in volumes if not volume.endswith(":ro")] == ["worker-data:/data"]
    assert service["environment"]["GRADPROBE_LIVENESS_FILE"].startswith("/tmp/")


def test_every_variable_has_a_default() -> None:
    """`docker compose up` works with no file to edit first."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    variables = re.findall(r"(?<!\$)\$\{([^}]*)\}", text)
    assert variables
    assert all(":-" in variable for variable in variables)
    assert not re.search(r"(?<!\$)\$[A-Za-z_]", text)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_images_are_built_from_targets_of_the_dockerfile(name: str) -> None:
    build = SERVICES[name]["build"]
    stages = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)
    assert build["target"] in stages
    arguments = set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    assert set(build.get("args", {})) <= arguments


def test_the_dockerfile_needs_neither_buildkit_nor_root() -> None:
    assert not re.search(r"^#\s*syntax=|--mount=|--link", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)
    for stage in ("service", "worker"):
        assert re.search(rf"^FROM runtime AS {stage}$", DOCKERFILE, re.MULTILINE)


def test_nothing_but_sources_reaches_an_image() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    assert allowed == {"pyproject.toml", "README.md", "LICENSE", "gradprobe", "service", "worker"}
