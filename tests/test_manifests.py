"""The Kubernetes manifests and the Compose file: rendered for real, and held against what the service takes.

`make manifests` holds them against the schemas of Kubernetes and the rules of checkov as well.
"""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from auth_service.server import GRACE
from auth_service.settings import Settings, load_settings

_DEPLOY = Path(__file__).parent.parent / "deploy"
_OVERLAYS = ("small", "production")
_KUBECTL = shutil.which("kubectl")
_SETTINGS = {f"AUTH_{name.upper()}" for name in Settings.model_fields}

needs_kubectl = pytest.mark.skipif(_KUBECTL is None, reason="no kubectl here: install it to render the manifests")


@pytest.fixture(scope="module", params=_OVERLAYS)
def rendered(request: pytest.FixtureRequest) -> dict[tuple[str, str], Any]:
    """Every object of an overlay, by kind and name."""
    command = [str(_KUBECTL), "kustomize", str(_DEPLOY / "kubernetes" / "overlays" / request.param)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(text)}


def _pods(rendered: dict[tuple[str, str], Any]) -> Iterator[tuple[str, Any]]:
    for (kind, name), one in rendered.items():
        if kind in ("Deployment", "StatefulSet", "Job"):
            yield name, one["spec"]["template"]


@needs_kubectl
def test_every_pod_is_without_rights_links_and_a_writable_root(rendered: dict[tuple[str, str], Any]) -> None:
    for name, template in _pods(rendered):
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] >= 10000, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
            assert "memory" in container["resources"]["limits"], name


@needs_kubectl
def test_the_service_is_given_settings_that_exist_and_secrets_as_files_alone(
    rendered: dict[tuple[str, str], Any],
) -> None:
    for name in ("auth-service", "auth-service-migrate"):
        template = dict(_pods(rendered))[name]
        [container] = template["spec"]["containers"]
        [configuration] = [one["configMapRef"]["name"] for one in container["envFrom"]]
        given = {**rendered[("ConfigMap", configuration)]["data"]}
        given |= {variable["name"]: variable["value"] for variable in container["env"]}
        assert {variable.removesuffix("_FILE") for variable in given} <= _SETTINGS
        assert not {"AUTH_DATABASE_URL", "AUTH_REDIS_URL", "AUTH_KEY_ENCRYPTION_KEYS"} & given.keys()
        [mount] = [one for one in container["volumeMounts"] if one["name"] == "secrets"]
        [volume] = [one for one in template["spec"]["volumes"] if one["name"] == "secrets"]
        assert mount["readOnly"] is True
        files = {f"{mount['mountPath']}/{item['path']}" for item in volume["secret"]["items"]}
        assert files == {value for variable, value in given.items() if variable.endswith("_FILE")}


@needs_kubectl
def test_each_probe_asks_what_it_is_for_on_the_port_that_the_container_has(
    rendered: dict[tuple[str, str], Any],
) -> None:
    [container] = dict(_pods(rendered))["auth-service"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    given = {variable["name"]: variable["value"] for variable in container["env"]}
    assert given["AUTH_LISTEN"] == f"0.0.0.0:{ports['public']}"
    assert given["AUTH_INTERNAL_LISTEN"] == f"0.0.0.0:{ports['internal']}"
    paths = {"startupProbe": "/startupz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    for probe, path in paths.items():
        assert container[probe]["httpGet"] == {"path": path, "port": "internal"}


@needs_kubectl
def test_a_pod_has_longer_to_stop_than_it_takes(rendered: dict[tuple[str, str], Any]) -> None:
    pod = dict(_pods(rendered))["auth-service"]["spec"]
    before = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= before + GRACE + 10


@needs_kubectl
def test_the_ingress_leads_to_the_public_port_and_nothing_leads_to_the_internal_one(
    rendered: dict[tuple[str, str], Any],
) -> None:
    backends = [
        path["backend"]["service"]
        for (kind, _), one in rendered.items()
        if kind == "Ingress"
        for rule in one["spec"]["rules"]
        for path in rule["http"]["paths"]
    ]
    assert {backend["name"] for backend in backends} == {"auth-service", "gateway-example"}
    for backend in backends:
        assert backend["port"] == {"name": "http"}
    [public] = rendered[("Service", "auth-service")]["spec"]["ports"]
    assert public["targetPort"] == "public"
    policy = rendered[("NetworkPolicy", "auth-service")]["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    for rule in policy["ingress"]:
        if {"port": "internal"} in rule["ports"]:
            [source] = rule["from"]
            assert source == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}


@needs_kubectl
def test_every_pod_is_behind_a_policy_of_both_directions(rendered: dict[tuple[str, str], Any]) -> None:
    policies = [one["spec"] for (kind, _), one in rendered.items() if kind == "NetworkPolicy"]
    for name, template in _pods(rendered):
        labels = template["metadata"]["labels"].items()
        over_it = [policy for policy in policies if policy["podSelector"]["matchLabels"].items() <= labels]
        assert len(over_it) == 1, name
        assert set(over_it[0]["policyTypes"]) == {"Ingress", "Egress"}, name


@needs_kubectl
def test_what_selects_pods_finds_some(rendered: dict[tuple[str, str], Any]) -> None:
    pods = [template["metadata"]["labels"].items() for _, template in _pods(rendered)]
    for (kind, name), one in rendered.items():
        spec = one.get("spec", {})
        selector = {
            "Service": lambda spec: spec["selector"],
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
        }.get(kind)
        if selector is not None:
            assert [labels for labels in pods if selector(spec).items() <= labels], (kind, name)
        if kind == "HorizontalPodAutoscaler":
            target = spec["scaleTargetRef"]
            scaled = rendered[(target["kind"], target["name"])]
            # Or each rollout would set back what the autoscaler has decided.
            assert "replicas" not in scaled["spec"], name


def test_the_rules_of_the_operator_are_those_of_prometheus() -> None:
    rules = yaml.safe_load((_DEPLOY / "prometheus" / "alerts.yaml").read_text("utf-8"))
    operator = yaml.safe_load((_DEPLOY / "kubernetes" / "monitoring" / "prometheus-rule.yaml").read_text("utf-8"))
    assert rules["groups"]
    assert operator["spec"] == rules


@needs_kubectl
def test_what_is_scraped_is_a_port_that_is_there(rendered: dict[tuple[str, str], Any]) -> None:
    if ("ServiceMonitor", "auth-service") not in rendered:
        pytest.skip("this overlay is for clusters without the Prometheus Operator")
    monitor = rendered[("ServiceMonitor", "auth-service")]["spec"]
    service = rendered[("Service", "auth-service-internal")]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [endpoint["port"] for endpoint in monitor["endpoints"]] == [
        port["name"] for port in service["spec"]["ports"]
    ]
    scraped = rendered[("PodMonitor", "gateway-example")]["spec"]
    template = dict(_pods(rendered))["gateway-example"]
    assert scraped["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
    environment = {one["name"]: one["value"] for one in template["spec"]["containers"][0]["env"]}
    assert environment["GATEWAY_METRICS_LISTEN"] == f"0.0.0.0:{ports['metrics']}"
    assert [endpoint["port"] for endpoint in scraped["podMetricsEndpoints"]] == ["metrics"]


def _compose() -> dict[str, Any]:
    composed: dict[str, Any] = yaml.safe_load((_DEPLOY / "compose" / "compose.yaml").read_text("utf-8"))
    return composed


def test_the_compose_file_names_settings_files_and_volumes_that_exist() -> None:
    composed = _compose()
    for name, service in composed["services"].items():
        if name in ("auth", "migrate"):
            given = service["environment"]
            assert {variable.removesuffix("_FILE") for variable in given} <= _SETTINGS
        for dependency in service.get("depends_on", {}):
            assert dependency in composed["services"], name
        for volume in service.get("volumes", []):
            source, target, *_ = volume.split(":")
            assert target.startswith("/"), name
            if source.startswith("."):
                assert (_DEPLOY / "compose" / source).exists(), volume
            else:
                assert source in composed["volumes"], volume


def test_the_compose_file_opens_no_port_to_other_machines() -> None:
    ports = [port for service in _compose()["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to the users of the images, which only root may")
def test_the_secrets_of_compose_are_made_once_and_fit_the_settings(tmp_path: Path) -> None:
    folders = [tmp_path / "postgresql", tmp_path / "auth"]
    for folder in folders:
        folder.mkdir()
    script = _DEPLOY / "compose" / "make_secrets.py"

    def made() -> dict[str, str]:
        subprocess.run([sys.executable, script, *folders], check=True)
        return {file.name: file.read_text("ascii") for folder in folders for file in folder.iterdir()}

    first = made()
    assert made() == first
    assert first["password"] in first["database-url"]
    given = {name.replace("-", "_"): value for name, value in first.items() if name != "password"}
    assert load_settings(issuer="http://localhost:8000", **given).key_encryption_keys
    for file in [file for folder in folders for file in folder.iterdir()]:
        assert stat.S_IMODE(file.stat().st_mode) == 0o400
