"""kubernetes/ as kustomize makes it, the schemas of KEDA's two kinds, and the pods in it: for test_kubernetes.py."""

import re
from pathlib import Path
from typing import Any, Final

import yaml

Document = dict[str, Any]
ROOT: Final = Path(__file__).resolve().parents[1]
MANIFESTS: Final = ROOT / "kubernetes"
BUILDS: Final = sorted(str(path.parent.relative_to(MANIFESTS)) for path in MANIFESTS.rglob("kustomization.yaml"))

_NAME: Final = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}},
    "additionalProperties": False,
}
_TRIGGER: Final = {
    "type": "object",
    "required": ["type", "name", "metadata", "authenticationRef"],
    "properties": {
        "type": {"const": "metrics-api"},
        "name": {"type": "string", "pattern": "^[a-z_]+$"},
        "metadata": {
            "type": "object",
            "required": ["url", "format", "valueLocation", "targetValue", "authMode"],
            "properties": {
                "url": {"type": "string"},
                "format": {"const": "prometheus"},
                "valueLocation": {"type": "string"},
                "targetValue": {"type": "string"},
                "authMode": {"const": "bearer"},
            },
            "additionalProperties": False,
        },
        "authenticationRef": _NAME,
    },
    "additionalProperties": False,
}
_SCALED_OBJECT: Final = {
    "type": "object",
    "required": ["scaleTargetRef", "triggers", "minReplicaCount", "maxReplicaCount", "advanced"],
    "properties": {
        "scaleTargetRef": _NAME,
        "minReplicaCount": {"type": "integer"},
        "maxReplicaCount": {"type": "integer"},
        "pollingInterval": {"type": "integer"},
        "advanced": {
            "type": "object",
            "properties": {
                "horizontalPodAutoscalerConfig": {
                    "type": "object",
                    "properties": {"behavior": {"type": "object"}},  # Kubernetes' own, which is validated as such
                    "additionalProperties": False,
                },
                "scalingModifiers": {
                    "type": "object",
                    "required": ["formula", "target"],
                    "properties": {
                        "formula": {"type": "string"},
                        "target": {"type": "string"},
                        "metricType": {"enum": ["AverageValue", "Value"]},
                    },
                    "additionalProperties": False,
                },
            },
            "additionalProperties": False,
        },
        "triggers": {"type": "array", "minItems": 1, "items": _TRIGGER},
    },
    "additionalProperties": False,
}
_TRIGGER_AUTHENTICATION: Final = {
    "type": "object",
    "required": ["secretTargetRef"],
    "properties": {
        "secretTargetRef": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["parameter", "name", "key"],
                "properties": {name: {"type": "string"} for name in ("parameter", "name", "key")},
                "additionalProperties": False,
            },
        }
    },
    "additionalProperties": False,
}
#: What is used here of KEDA 2.16's definitions: they are not among Kubernetes' own. Nothing beside it is allowed.
KEDA: Final = {"ScaledObject": _SCALED_OBJECT, "TriggerAuthentication": _TRIGGER_AUTHENTICATION}


def build(directory: Path) -> list[Document]:
    """What kustomize makes of a directory: these resources one after another, as long as it is told of nothing else."""
    kustomization = yaml.safe_load((directory / "kustomization.yaml").read_text(encoding="utf-8"))
    assert kustomization.keys() == {"apiVersion", "kind", "resources"}, "only resources, so that this reader is exact"
    assert kustomization["apiVersion"] == "kustomize.config.k8s.io/v1beta1"
    assert kustomization["kind"] == "Kustomization"
    found: list[Document] = []
    for name in kustomization["resources"]:
        path = (directory / name).resolve()
        if path.is_dir():
            assert not directory.resolve().is_relative_to(path), "kustomize refuses a base that contains its overlay"
            found.extend(build(path))
        else:
            assert path.parent == directory.resolve(), "kustomize refuses files above the kustomization"
            found.extend(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    return found


ALL: Final = {name: build(MANIFESTS / name) for name in BUILDS}
#: Every manifest once.
DOCUMENTS: Final = {
    f"{document['kind']} {document['metadata']['name']}": document for found in ALL.values() for document in found
}
PODS: Final = {
    document["metadata"]["name"]: document["spec"]["template"]["spec"]
    for document in DOCUMENTS.values()
    if document["kind"] in {"Deployment", "StatefulSet"}
}


def container_of(pod: str) -> Document:
    """The one container of a pod that goes on."""
    (container,) = PODS[pod]["containers"]
    return container  # type: ignore[no-any-return]


def environment_of(container: Document) -> dict[str, str | None]:
    """A container's variables; None is a value that comes from a Secret."""
    found: dict[str, str | None] = {}
    for source in container.get("envFrom", []):
        found |= DOCUMENTS[f"ConfigMap {source['configMapRef']['name']}"]["data"]
    for variable in container["env"]:
        assert ("value" in variable) != ("secretKeyRef" in variable.get("valueFrom", {}))
        found[variable["name"]] = variable.get("value")
    return found


def secret_keys() -> set[tuple[str, str]]:
    """Name and key of all that is read from Secrets."""
    found = set()
    for spec in PODS.values():
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            sources = [
                variable["valueFrom"]["secretKeyRef"]
                for variable in container.get("env", [])
                if "valueFrom" in variable
            ]
            found |= {(source["name"], source["key"]) for source in sources}
        for volume in spec["volumes"]:
            if "secret" in volume:
                found |= {(volume["secret"]["secretName"], item["key"]) for item in volume["secret"]["items"]}
    for source in DOCUMENTS["TriggerAuthentication metrics"]["spec"]["secretTargetRef"]:
        found.add((source["name"], source["key"]))
    return found


def unescaped(command: list[str]) -> list[str]:
    """A command as Compose gives it to the container: there `$$` is a dollar."""
    return [part.replace("$$", "$") for part in command]


def mebibytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * {"Mi": 1, "Gi": 1024}[unit]


def port_named(container: Document, name: str) -> int:
    return int(next(port["containerPort"] for port in container["ports"] if port["name"] == name))
