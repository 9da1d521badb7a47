"""kubernetes/: what kustomize makes of it is valid, confined, and says what compose file, settings and contract say."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import jsonschema
import kubernetes_validate
import pytest
import yaml
from sqlalchemy.engine import URL

from gradprobe.queue import QUEUES
from gradprobe.settings import Settings
from gradprobe.store import migrate
from gradprobe.store.database import Database
from service import metrics
from tests.manifests import (
    ALL,
    BUILDS,
    DOCUMENTS,
    KEDA,
    MANIFESTS,
    PODS,
    ROOT,
    Document,
    container_of,
    environment_of,
    mebibytes,
    port_named,
    secret_keys,
    unescaped,
)

COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
CONTRACT: Final[dict[str, Any]] = json.loads((ROOT / "openapi" / "openapi.json").read_text(encoding="utf-8"))
PAGE: Final = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text(encoding="utf-8")
DOCKERFILE: Final = (ROOT / "Dockerfile").read_text(encoding="utf-8")

APPLICATIONS: Final = ("service", "worker")
SERVERS: Final = ("postgres", "redis")
#: The oldest version that the page promises, and the newest of which there are schemas.
VERSIONS: Final = (PAGE.split("Needed: Kubernetes ")[1].split()[0], kubernetes_validate.latest_version())
CONTAINERS: Final = [
    pytest.param(pod, container, id=f"{pod}-{container['name']}")
    for pod, spec in PODS.items()
    for container in [*spec.get("initContainers", []), *spec["containers"]]
]


# ---- what kustomize builds ---------------------------------------------------------------------------------------


def test_the_overlays_are_the_base_and_what_is_optional() -> None:
    assert BUILDS == ["base", "overlays/autoscaled", "overlays/local"]
    for name in BUILDS[1:]:
        assert ALL[name][: len(ALL["base"])] == ALL["base"]


def test_every_file_is_applied() -> None:
    named = {
        path.parent / resource
        for path in MANIFESTS.rglob("kustomization.yaml")
        for resource in yaml.safe_load(path.read_text(encoding="utf-8"))["resources"]
    }
    files = {path for path in MANIFESTS.rglob("*") if path.is_file() and path.name != "kustomization.yaml"}
    assert files == {path for path in named if path.suffix}


@pytest.mark.parametrize("name", BUILDS)
def test_nothing_is_built_twice_and_all_is_in_one_namespace(name: str) -> None:
    identities = Counter((document["kind"], document["metadata"]["name"]) for document in ALL[name])
    assert max(identities.values()) == 1
    (namespace,) = [document["metadata"]["name"] for document in ALL[name] if document["kind"] == "Namespace"]
    elsewhere = [document for document in ALL[name] if document["kind"] != "Namespace"]
    assert {document["metadata"]["namespace"] for document in elsewhere} == {namespace}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_manifest_is_valid(name: str, version: str) -> None:
    """By the schemas that Kubernetes publishes, with no field that they do not know."""
    document = DOCUMENTS[name]
    if document["apiVersion"] == "keda.sh/v1alpha1":
        jsonschema.validate(document["spec"], KEDA[document["kind"]])
    else:
        kubernetes_validate.validate(document, version, strict=True)


def test_a_misspelt_field_is_refused() -> None:
    document = json.loads(json.dumps(DOCUMENTS["Deployment worker"]))
    document["spec"]["template"]["spec"]["terminationGracePeriod"] = 60
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)


# ---- the pods ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pod", PODS)
def test_every_pod_fits_the_restricted_standard(pod: str) -> None:
    labels = DOCUMENTS["Namespace gradprobe"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    spec = PODS[pod]
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["fsGroup"] == context["runAsGroup"], "the group that reads the secrets"
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    assert all(volume.keys() & {"secret", "emptyDir"} for volume in spec["volumes"])


@pytest.mark.parametrize(("pod", "container"), CONTAINERS)
def test_every_container_is_confined_and_bounded(pod: str, container: Document) -> None:
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert mebibytes(container["resources"]["limits"]["memory"]) >= mebibytes(
        container["resources"]["requests"]["memory"]
    )
    volumes = {volume["name"] for volume in PODS[pod]["volumes"]}
    if pod in SERVERS:
        volumes |= {
            claim["metadata"]["name"] for claim in DOCUMENTS[f"StatefulSet {pod}"]["spec"]["volumeClaimTemplates"]
        }
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert mounts.keys() <= volumes
    assert mounts["secrets"]["mountPath"] == "/run/secrets"
    assert mounts["secrets"]["readOnly"] is True


@pytest.mark.parametrize("pod", APPLICATIONS)
def test_applications_run_as_the_image_s_user(pod: str) -> None:
    context = PODS[pod]["securityContext"]
    assert re.search(rf"^USER {context['runAsUser']}:{context['runAsGroup']}$", DOCKERFILE, re.MULTILINE)
    assert COMPOSE["services"][pod]["user"] == f"{context['runAsUser']}:{context['runAsGroup']}"


@pytest.mark.parametrize("pod", PODS)
def test_images_and_commands_are_the_compose_file_s(pod: str) -> None:
    """So the worker's queues are, too."""
    compose, container = COMPOSE["services"][pod], container_of(pod)
    assert container["image"] == compose["image"]
    assert container.get("command") == (
        unescaped(compose.get("entrypoint", []) + compose["command"]) if "command" in compose else None
    )
    if pod == "worker":
        assert "--queues=any,cpu" in container["command"]


@pytest.mark.parametrize("pod", APPLICATIONS)
def test_nothing_starts_before_the_tables_of_its_version(pod: str) -> None:
    (first,) = PODS[pod]["initContainers"]
    assert first["command"] == COMPOSE["services"]["migrate"]["command"]
    assert first["image"] == container_of(pod)["image"]
    assert environment_of(first).items() <= environment_of(container_of(pod)).items()


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_that_stops_has_the_time_that_it_needs(pod: str) -> None:
    spec, compose = PODS[pod], COMPOSE["services"][pod]
    needed = int(compose["stop_grace_period"].removesuffix("s"))
    if pod == "service":
        patience = next(part for part in container_of(pod)["command"] if part.startswith("--patience="))
        pause = container_of(pod)["lifecycle"]["preStop"]["exec"]["command"]
        assert pause[0] == "sleep"
        needed = max(needed, int(pause[1]) + int(patience.removeprefix("--patience=")) + 5)
    assert spec["terminationGracePeriodSeconds"] >= needed


# ---- probes, ports, addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_probes_ask_paths_of_the_contract_that_need_no_key(probe: str) -> None:
    container = container_of("service")
    request = container[probe]["httpGet"]
    assert request["path"] == ("/readyz" if probe == "readinessProbe" else "/livez")
    assert "get" in CONTRACT["paths"][request["path"]]
    assert f"--port={port_named(container, request['port'])}" in container["command"]


@pytest.mark.parametrize("pod", ["worker", "postgres", "redis"])
def test_other_probes_are_the_compose_file_s_health_check(pod: str) -> None:
    kind, *command = unescaped(COMPOSE["services"][pod]["healthcheck"]["test"])
    wanted = ["sh", "-c", *command] if kind == "CMD-SHELL" else command
    container = container_of(pod)
    probes = {name: container[name] for name in container if name.endswith("Probe")}
    assert probes.keys() >= {"startupProbe", "livenessProbe"}
    for probe in probes.values():
        assert probe["exec"]["command"] == wanted


def test_a_worker_has_as_long_to_start_as_in_the_compose_file() -> None:
    probe = container_of("worker")["startupProbe"]
    start = COMPOSE["services"]["worker"]["healthcheck"]["start_period"].removesuffix("s")
    assert probe["periodSeconds"] * probe["failureThreshold"] >= int(start)


@pytest.mark.parametrize("name", ["service", "postgres", "redis"])
def test_addresses_lead_to_pods_and_ports(name: str) -> None:
    spec = DOCUMENTS[f"Service {name}"]["spec"]
    kind = "Deployment" if name == "service" else "StatefulSet"
    workload = DOCUMENTS[f"{kind} {name}"]["spec"]
    assert spec["selector"].items() <= workload["template"]["metadata"]["labels"].items()
    for port in spec["ports"]:
        assert port["port"] == port_named(container_of(name), port["targetPort"])
    if name == "service":
        exposed = re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE)
        assert [str(port["port"]) for port in spec["ports"]] == exposed
    else:
        assert workload["serviceName"] == name


@pytest.mark.parametrize("pod", PODS)
def test_workloads_select_their_own_pods(pod: str) -> None:
    workload = next(
        document
        for document in DOCUMENTS.values()
        if document["metadata"]["name"] == pod and document["kind"] in {"Deployment", "StatefulSet"}
    )
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert workload["spec"]["selector"]["matchLabels"] == {"app.kubernetes.io/name": pod}
    assert labels["app.kubernetes.io/name"] == pod


def test_one_replica_answers_while_nodes_are_emptied() -> None:
    budget = DOCUMENTS["PodDisruptionBudget service"]["spec"]
    workload = DOCUMENTS["Deployment service"]["spec"]
    assert budget["selector"] == workload["selector"]
    assert 1 <= budget["minAvailable"] < workload["replicas"] == 2


def test_database_and_broker_are_reached_by_the_applications_alone() -> None:
    policy = DOCUMENTS["NetworkPolicy backend"]["spec"]
    (guarded,) = policy["podSelector"]["matchExpressions"]
    assert guarded["values"] == list(SERVERS)
    (rule,) = policy["ingress"]
    (allowed,) = rule["from"][0]["podSelector"]["matchExpressions"]
    assert allowed["values"] == list(APPLICATIONS)
    for port in rule["ports"]:
        assert port_named(container_of(port["port"]), port["port"])
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == []


# ---- settings and secrets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pod", APPLICATIONS)
def test_variables_are_settings_and_their_values_are_accepted(
    pod: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = environment_of(container_of(pod))
    settings = {f"GRADPROBE_{name.upper()}" for name in Settings.model_fields}
    secrets = {f"GRADPROBE_{name}_PASSWORD_FILE" for name in ("DATABASE", "REDIS")}
    assert variables.keys() <= settings | secrets
    for name, value in variables.items():
        if name in secrets:
            assert value is not None
            path = Path(value)
            items = next(volume for volume in PODS[pod]["volumes"] if volume["name"] == "secrets")["secret"]["items"]
            assert path.parent == Path("/run/secrets")
            assert path.name in {item["path"] for item in items}
            (tmp_path / path.name).write_text("word", encoding="utf-8")
            monkeypatch.setenv(name, str(tmp_path / path.name))
        else:
            monkeypatch.setenv(name, COMPOSE["x-environment"][name] if value is None else value)
    read = Settings()
    assert (
        read.database.render_as_string(hide_password=False) == "postgresql+psycopg://gradprobe:word@postgres/gradprobe"
    )
    assert read.broker_url == "redis://:word@redis:6379/0"
    assert read.authentication == "required"


@pytest.mark.parametrize("pod", APPLICATIONS)
def test_pods_are_given_what_containers_are_given(pod: str) -> None:
    theirs = COMPOSE["services"][pod]["environment"]
    ours = environment_of(container_of(pod))
    # Where the data sets lie is the cluster's own affair; what isn't there is fetched.
    assert theirs.keys() - {"GRADPROBE_DATASETS_DIRECTORY"} <= ours.keys()
    # Compose publishes on loopback alone, and so asks nobody for a key.
    for name in theirs.keys() & ours.keys() - {"GRADPROBE_AUTHENTICATION"}:
        assert ours[name] in (theirs[name], None), name


@pytest.mark.parametrize("pod", SERVERS)
def test_servers_are_given_what_their_containers_are_given(pod: str) -> None:
    theirs = COMPOSE["services"][pod].get("environment", {})
    ours = {variable["name"]: variable["value"] for variable in container_of(pod).get("env", [])}
    assert ours.keys() == theirs.keys()
    different = {name for name in ours if ours[name] != theirs[name]}
    assert different <= {"PGDATA"}  # below the volume
    if different:
        assert ours["PGDATA"].startswith(theirs["PGDATA"] + "/")


def test_no_password_is_in_a_manifest_and_the_page_names_every_secret() -> None:
    assert not [name for name in DOCUMENTS if name.startswith("Secret ")]
    for name, key in secret_keys():
        assert re.search(rf"create secret generic {name}\b", PAGE), name
        assert f"={key}=" in PAGE, key
    for document in DOCUMENTS.values():
        assert not re.search(r"://[^/@\s\"]*:[^/@\s\"]+@", json.dumps(document))


def test_the_page_s_addresses_are_those_of_the_local_overlay() -> None:
    for name in ("GRADPROBE_DATABASE_URL", "GRADPROBE_REDIS_URL"):
        address = COMPOSE["x-environment"][name]
        assert address in PAGE
        parts = urlsplit(address)
        (port,) = DOCUMENTS[f"Service {parts.hostname}"]["spec"]["ports"]
        assert port["port"] == (parts.port or 5432)


def test_an_experiment_that_is_accepted_fits_into_a_worker() -> None:
    """The estimate is right to within an eighth (docs/bounds.md); half a GiB for Celery's own process is plenty."""
    bound = int(DOCUMENTS["ConfigMap settings"]["data"]["GRADPROBE_MAXIMUM_MEMORY_MEBIBYTES"])
    assert bound * 9 / 8 + 512 <= mebibytes(container_of("worker")["resources"]["limits"]["memory"])


# ---- the autoscaler ----------------------------------------------------------------------------------------------


def test_the_autoscaler_reads_figures_that_are_there(tmp_path: Path) -> None:
    url = URL.create("sqlite", database=str(tmp_path / "gradprobe.db"))
    migrate.upgrade(url)
    database = Database(url)
    try:
        lines = metrics.exposition(database).decode().splitlines()
    finally:
        database.close()
    for trigger in DOCUMENTS["ScaledObject worker"]["spec"]["triggers"]:
        location = trigger["metadata"]["valueLocation"]
        assert f"{location} 0.0" in lines
        address = urlsplit(trigger["metadata"]["url"])
        assert address.hostname == "service.gradprobe.svc"
        assert address.port == DOCUMENTS["Service service"]["spec"]["ports"][0]["port"]
        assert "get" in CONTRACT["paths"][address.path]
        assert f"TriggerAuthentication {trigger['authenticationRef']['name']}" in DOCUMENTS


def test_the_autoscaler_counts_the_queues_of_the_worker_that_it_scales() -> None:
    spec = DOCUMENTS["ScaledObject worker"]["spec"]
    command = container_of(spec["scaleTargetRef"]["name"])["command"]
    (queues,) = [part.removeprefix("--queues=").split(",") for part in command if part.startswith("--queues=")]
    locations = " ".join(trigger["metadata"]["valueLocation"] for trigger in spec["triggers"])
    counted = re.findall(r'gradprobe_queued_experiments\{queue="(\w+)"\}', locations)
    assert counted == queues
    assert set(counted) <= set(QUEUES)
    names = [trigger["name"] for trigger in spec["triggers"]]
    assert spec["advanced"]["scalingModifiers"]["formula"].split(" + ") == names


def test_the_autoscaler_keeps_a_worker_and_the_database_within_its_connections() -> None:
    spec = DOCUMENTS["ScaledObject worker"]["spec"]
    assert spec["minReplicaCount"] >= 1
    assert "replicas" not in DOCUMENTS["Deployment worker"]["spec"]
    service = DOCUMENTS["Deployment service"]["spec"]
    replicas = service["replicas"] + service["strategy"]["rollingUpdate"]["maxSurge"]
    most = replicas * Settings.model_fields["database_pool"].default + spec["maxReplicaCount"] * 5
    assert most <= 97


def test_the_autoscaler_s_behaviour_is_one_of_kubernetes() -> None:
    spec = DOCUMENTS["ScaledObject worker"]["spec"]
    behaviour = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    target = {"apiVersion": "apps/v1", "kind": "Deployment"} | spec["scaleTargetRef"]
    made = {"scaleTargetRef": target, "maxReplicas": spec["maxReplicaCount"], "behavior": behaviour}
    autoscaler = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": made}
    kubernetes_validate.validate(autoscaler, VERSIONS[-1], strict=True)
