"""The manifests: Kustomize and Helm make the same, valid by schema, and as safe as the pages say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from bridge.config.loading import load
from bridge.config.model import Config

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "config" / "kubernetes"
CHART = FOLDER / "chart"
VERSIONS = ("1.27", "1.33")
"""Of Kubernetes: the oldest that knows all fields, and a recent one."""
CUSTOM = {"ServiceMonitor"}
"""Kinds that an operator defines, and no schema of Kubernetes."""
VARIANTS = {"all in one": ("base", None), "roles": ("overlays/roles", CHART / "values-roles.yaml")}
Manifests = dict[tuple[str, str], dict[str, Any]]


def run(*arguments: str | Path) -> str:
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def manifests(text: str) -> Manifests:
    documents = [document for document in yaml.safe_load_all(text) if document]
    named = {(document["kind"], document["metadata"]["name"]): document for document in documents}
    assert len(named) == len(documents)
    return named


@pytest.fixture(scope="module")
def made(kubernetes_tools: Path) -> dict[tuple[str, str], Manifests]:
    """Give what Kustomize and Helm make of each variant."""
    texts = {}
    helm = (sys.executable, ROOT / "tests" / "rigs" / "helm.py", kubernetes_tools, CHART, "bridge")
    for variant, (folder, values) in VARIANTS.items():
        kustomized = run(kubernetes_tools / "bin" / "kubectl", "kustomize", FOLDER / folder)
        texts["kustomize", variant] = manifests(kustomized)
        texts["helm", variant] = manifests(run(*helm, *([] if values is None else [values])))
    return texts


def of_kinds(made: dict[tuple[str, str], Manifests], *kinds: str) -> list[dict[str, Any]]:
    return [
        manifest for variant in made.values() for (kind, _), manifest in variant.items() if not kinds or kind in kinds
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_are_valid_by_schema(made, version) -> None:
    for manifest in of_kinds(made):
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_schema_refuses_a_misspelled_field(made) -> None:
    deployment = json.loads(json.dumps(of_kinds(made, "Deployment")[0]))
    deployment["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[0], strict=True)


def plain(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest without what names the tool and the release, and the hash of the configuration."""
    text = re.sub(r"bridge-config-\w{10}\b", "bridge-config", json.dumps(manifest))

    def without(value: Any) -> Any:
        if isinstance(value, list):
            return [without(item) for item in value]
        if not isinstance(value, dict):
            return value
        own = re.compile(r"(?:app\.kubernetes\.io/(?:instance|version|managed-by|component)|helm\.sh/|checksum/)")
        kept = {key: without(item) for key, item in value.items() if not own.match(key)}
        return {key: item for key, item in kept.items() if item not in ({}, "IfNotPresent")}

    values: dict[str, Any] = without(json.loads(text))
    return values


@pytest.mark.parametrize("variant", VARIANTS)
def test_helm_and_kustomize_make_the_same(made, variant) -> None:
    kustomized, helmed = (
        {
            (kind, plain(manifest)["metadata"]["name"]): plain(manifest)
            for (kind, _), manifest in made[tool, variant].items()
        }
        for tool in ("kustomize", "helm")
    )
    assert set(kustomized) == set(helmed)
    for name, manifest in kustomized.items():
        if name[0] == "ConfigMap":
            texts = [made_by[name]["data"].pop("bridge.yaml") for made_by in (kustomized, helmed)]
            assert yaml.safe_load(texts[0]) == yaml.safe_load(texts[1])
        if name == ("NetworkPolicy", "bridge-outside"):
            helmed[name]["spec"]["podSelector"].pop("matchExpressions")
            manifest["spec"]["podSelector"].pop("matchExpressions", None)
        assert manifest == helmed[name], name


def test_pods_are_restricted(made) -> None:
    deployments = of_kinds(made, "Deployment")
    assert len(deployments) == 2 * (1 + 3)
    for deployment in deployments:
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod["automountServiceAccountToken"]
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert set(container["resources"]) == {"requests", "limits"}
        assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert deployment["spec"]["replicas"] == 2
        assert pod["terminationGracePeriodSeconds"] > Config.model_fields["drain_timeout"].default


def test_selectors_choose_the_pods_of_one_deployment_of_kinds(made) -> None:
    for variant in made.values():
        pods = [
            manifest["spec"]["template"]["metadata"]["labels"]
            for (kind, _), manifest in variant.items()
            if kind == "Deployment"
        ]
        for (kind, name), manifest in variant.items():
            if kind in {"Deployment", "PodDisruptionBudget"}:
                wanted = manifest["spec"]["selector"]["matchLabels"].items()
                assert sum(wanted <= labels.items() for labels in pods) == 1, (kind, name)
            if kind == "Service":
                assert all(manifest["spec"]["selector"].items() <= labels.items() for labels in pods)


def test_split_deployments_have_one_role_of_kinds(made) -> None:
    for tool in ("kustomize", "helm"):
        roles = {
            name: manifest["spec"]["template"]["spec"]["containers"][0]["args"][3:]
            for (kind, name), manifest in made[tool, "roles"].items()
            if kind == "Deployment"
        }
        assert roles == {f"bridge-{role}": ["--role", role] for role in ("poll", "relay", "sink")}


def test_relaying_pods_reach_no_provider_and_no_endpoint(made) -> None:
    for tool in ("kustomize", "helm"):
        outside = made[tool, "roles"]["NetworkPolicy", "bridge-outside"]
        (chosen,) = outside["spec"]["podSelector"]["matchExpressions"]
        assert chosen["values"] == ["poll", "sink"]
        inside = made[tool, "roles"]["NetworkPolicy", "bridge"]
        assert 443 not in {port["port"] for rule in inside["spec"]["egress"] for port in rule["ports"]}


def test_scraped_job_is_of_one_release_and_has_alerts(made, kubernetes_tools) -> None:
    job = re.compile(r"replacement: (\S+)")
    helm = (sys.executable, ROOT / "tests" / "rigs" / "helm.py", kubernetes_tools, CHART)
    other = run(*helm, "status-events", CHART / "values-roles.yaml")
    assert job.findall(other) == ["bridge-status-events"]
    for monitor in of_kinds(made, "ServiceMonitor"):
        assert monitor["spec"]["endpoints"][0]["relabelings"] == [{"targetLabel": "job", "replacement": "bridge"}]


def test_bridge_accepts_the_configuration_of_the_manifests(made, tmp_path) -> None:
    (config,) = of_kinds({("", ""): made["helm", "roles"]}, "ConfigMap")
    secrets = {
        "store_url": "redis://redis:6379/0",
        "broker_url": "amqp://rabbitmq:5672//",
        "govdelivery_token": "token",
        "crm_secret": "whsec_" + "c2VjcmV0IG9mIDI0IGJ5dGVzISEhISEh",
    }
    for name, secret in secrets.items():
        (tmp_path / name).write_text(secret)
    file = tmp_path / "bridge.yaml"
    file.write_text(config["data"]["bridge.yaml"].replace("/run/secrets/bridge", str(tmp_path)))
    loaded = load(file, environ={"HOME": str(tmp_path)})
    assert set(loaded.sources) == {"city"}
    page = (ROOT / "docs" / "how-to" / "run-on-kubernetes.md").read_text()
    assert set(re.findall(r"--from-file=(\w+)", page)) == set(secrets)
