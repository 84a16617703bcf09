"""The Kubernetes manifests are valid, and agree with the service, the gateway and each other.

No cluster is asked: what kustomize makes of them is not seen here.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from serve.launcher.settings import OPTIONS

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "deploy" / "kubernetes"
FILES = sorted(path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml")
KUBERNETES = "1.37.0"


def documents() -> Iterator[dict[str, Any]]:
    """Every object of every file."""
    for path in FILES:
        yield from yaml.safe_load_all(path.read_text())


def found(kind: str, name: str) -> dict[str, Any]:
    """The object of a kind and name."""
    (one,) = (
        each for each in documents() if (each["kind"], each["metadata"]["name"]) == (kind, name)
    )
    return one


def container(kind: str, name: str) -> dict[str, Any]:
    """The only container of a workload."""
    (one,) = found(kind, name)["spec"]["template"]["spec"]["containers"]
    assert isinstance(one, dict)
    return one


WORKLOADS = [("Deployment", "pinhole"), ("Deployment", "pinhole-gateway"), ("Job", "pinhole-embed")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_schema(path: Path) -> None:
    """Every object has only fields that Kubernetes knows, of the right types."""
    for each in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(each, KUBERNETES, strict=True)


def test_a_wrong_field_would_be_found() -> None:
    """The check above isn't blind."""
    wrong = found("Deployment", "pinhole")
    wrong["spec"]["replica"] = 3
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_kustomizations_name_what_is_there() -> None:
    """Every resource exists, and no file beside a kustomization is left out."""
    for path in FOLDER.rglob("kustomization.yaml"):
        resources = yaml.safe_load(path.read_text())["resources"]
        assert all((path.parent / each).exists() for each in resources)
        beside = {each.name for each in path.parent.glob("*.yaml")} - {path.name}
        assert beside <= set(resources)


def test_images_are_those_of_docker_compose() -> None:
    """The kustomizations rename the images that docker compose builds, to those used here."""
    images = {container(*workload)["image"].split(":")[0] for workload in WORKLOADS[:2]}
    base = yaml.safe_load((FOLDER / "torchserve" / "kustomization.yaml").read_text())["images"]
    other = yaml.safe_load((FOLDER / "granian" / "kustomization.yaml").read_text())["images"]

    assert {each["name"] for each in base} == images == {"pinhole-torchserve", "pinhole-gateway"}
    assert {each["name"] for each in other} < {each["newName"] for each in base}
    compose = (ROOT / "docker-compose.yml").read_text()
    assert all(
        f"image: {name}" in compose for name in ("pinhole-${PINHOLE_SERVER", "pinhole-gateway")
    )


def test_settings_exist() -> None:
    """Every variable is one that the container reads."""
    settings = {f"PINHOLE_{flag[2:].replace('-', '_').upper()}" for flag in OPTIONS}
    gateway = set(
        re.findall(r"^#   (PINHOLE_\w+)", (ROOT / "serve/gateway/start.sh").read_text(), re.M)
    )
    client = {"PINHOLE_URL", "PINHOLE_API_KEY"}
    for workload, known in zip(WORKLOADS, (settings, gateway, client), strict=True):
        names = {each["name"] for each in container(*workload).get("env", [])}
        assert {name for name in names if name.startswith("PINHOLE_")} <= known


def test_ports_and_labels_meet() -> None:
    """Services, policies and budgets select pods that exist, and ports that these have."""
    pods = [
        found(*workload)["spec"]["template"]["metadata"]["labels"] for workload in WORKLOADS[:2]
    ]
    for each in documents():
        spec = each["spec"]
        selector = spec.get("podSelector") or spec.get("selector") or {}
        labels = selector.get("matchLabels", selector)
        if each["kind"] in ("Service", "NetworkPolicy", "PodDisruptionBudget", "Deployment"):
            assert sum(labels.items() <= pod.items() for pod in pods) == 1
    assert {port["port"] for port in found("Service", "pinhole")["spec"]["ports"]} == {
        port["containerPort"] for port in container("Deployment", "pinhole")["ports"]
    }


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload[1])
def test_confined(workload: tuple[str, str]) -> None:
    """No container has a privilege, a writable root or a token that it doesn't need."""
    pod = found(*workload)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["automountServiceAccountToken"] is False
    assert container(*workload)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container(*workload)["resources"]["limits"]
