"""The output of `kubectl kustomize` for docker/kubernetes: valid for the API, and locked down."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.support.paths import ROOT

DOCKER = ROOT / "docker"
FOLDERS = (
    "variants/pvc",
    "variants/object-store",
    "variants/scann",
    "variants/sharded",
    "variants/kserve",
    "monitoring",
    "rollout",
)
API_VERSIONS = ("1.29", "1.33")  # the oldest has native sidecars
CUSTOM = {"InferenceService", "PrometheusRule", "ServiceMonitor"}  # not part of the Kubernetes API
POD_TEMPLATES = {
    "Deployment": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
Resource = dict[str, Any]


def reason_not_to_render() -> str | None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return "kubectl is not installed"
    done = subprocess.run(
        [kubectl, "version", "--client", "--output=json"], capture_output=True, check=False
    )
    version = json.loads(done.stdout or "{}").get("kustomizeVersion", "v0")
    if int(version.lstrip("v").partition(".")[0]) < 4:
        return f"this kubectl's kustomize ({version}) is older than 4"
    return None


@cache
def rendered(folder: str) -> tuple[Resource, ...]:
    reason = reason_not_to_render()
    if reason is not None:
        pytest.skip(reason)
    done = subprocess.run(
        ["kubectl", "kustomize", str(DOCKER / "kubernetes" / folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(folder: str, kind: str) -> list[Resource]:
    return [resource for resource in rendered(folder) if resource["kind"] == kind]


def pods(folder: str) -> Iterator[tuple[str, Resource]]:
    for resource in rendered(folder):
        if resource["kind"] in POD_TEMPLATES:
            template = resource
            for key in POD_TEMPLATES[resource["kind"]]:
                template = template[key]
            yield f"{resource['kind']} {resource['metadata']['name']}", template["spec"]


def containers(pod: Resource) -> list[Resource]:
    return [*pod.get("initContainers", []), *pod["containers"]]


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("version", API_VERSIONS)
def test_resources_are_valid_for_the_api(folder: str, version: str) -> None:
    for resource in rendered(folder):
        if resource["kind"] not in CUSTOM:
            kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_pods_meet_the_restricted_security_standard(folder: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, and more."""
    for name, pod in pods(folder):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), name
        assert not any("hostPath" in volume for volume in pod["volumes"]), name
        for container in containers(pod):
            of_container = container["securityContext"]
            assert of_container["allowPrivilegeEscalation"] is False, container["name"]
            assert of_container["readOnlyRootFilesystem"] is True, container["name"]
            assert of_container["capabilities"] == {"drop": ["ALL"]}, container["name"]
            assert "privileged" not in of_container, container["name"]
            assert "memory" in container["resources"]["limits"], container["name"]
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()


@pytest.mark.parametrize("folder", ["variants/pvc", "variants/object-store", "variants/scann"])
def test_probes_ask_for_models_and_not_for_open_ports(folder: str) -> None:
    [deployment] = of_kind(folder, "Deployment")
    [serving] = [
        entry for entry in deployment["spec"]["template"]["spec"]["containers"]
        if entry["name"] == "serving"
    ]  # fmt: skip
    for probe in ("startupProbe", "readinessProbe"):
        assert "/etc/shortlist/server/ready" in serving[probe]["exec"]["command"]
    # Restarting a server does not help if its model is missing.
    assert serving["livenessProbe"]["grpc"] == {"port": 8500}
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > int(serving["lifecycle"]["preStop"]["exec"]["command"][1])


@pytest.mark.parametrize("folder", ["variants/pvc", "variants/object-store", "variants/scann"])
def test_selectors_find_the_servers_and_nothing_dangles(folder: str) -> None:
    [deployment] = of_kind(folder, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
    selectors = [entry["spec"]["selector"] for entry in of_kind(folder, "Service")]
    for kind, key in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        selectors += [entry["spec"][key]["matchLabels"] for entry in of_kind(folder, kind)]
    assert len(selectors) == 4
    assert all(selector.items() <= labels for selector in selectors)
    [scaler] = of_kind(folder, "HorizontalPodAutoscaler")
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    names = {entry["metadata"]["name"] for entry in of_kind(folder, "ConfigMap")}
    # Created by hand and written by rollouts, so not part of a variant.
    names |= {"shortlist-models", "shortlist-models-scann"}
    used = {
        volume["configMap"]["name"]
        for _, pod in pods(folder)
        for volume in pod["volumes"]
        if "configMap" in volume
    }
    assert used <= names


def test_each_shard_has_servers_services_and_a_configuration_of_its_own() -> None:
    folder = "variants/sharded"
    shards = [f"shortlist-serving-shard{number}" for number in range(2)]
    deployments = {entry["metadata"]["name"]: entry for entry in of_kind(folder, "Deployment")}
    assert list(deployments) == shards
    for number, deployment in enumerate(deployments.values()):
        template = deployment["spec"]["template"]
        maps = [volume.get("configMap", {}).get("name") for volume in template["spec"]["volumes"]]
        assert f"shortlist-models-shard{number}" in maps
        found = [
            entry["metadata"]["name"]
            for entry in of_kind(folder, "Service")
            if entry["spec"]["selector"].items() <= template["metadata"]["labels"].items()
        ]
        assert f"shortlist-serving-grpc-shard{number}" in found
        assert all(name.endswith(f"-shard{number}") for name in found)


def test_grpc_has_a_headless_service_and_rest_a_cluster_address() -> None:
    services = {entry["metadata"]["name"]: entry for entry in of_kind("variants/pvc", "Service")}
    assert services["shortlist-serving-grpc"]["spec"]["clusterIP"] == "None"
    assert services["shortlist-serving"]["spec"]["type"] == "ClusterIP"


def test_servers_only_read_the_repository() -> None:
    """The jobs alone write it."""
    for folder in ("variants/pvc", "variants/scann"):
        [deployment] = of_kind(folder, "Deployment")
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
            assert "repository" not in mounts or mounts["repository"]["readOnly"]


def test_one_job_of_a_kind_runs_at_a_time_and_hourly_ones_end_within_the_hour() -> None:
    jobs = {
        entry["metadata"]["name"]: entry["spec"] for entry in of_kind("variants/pvc", "CronJob")
    }
    assert list(jobs) == ["shortlist-export", "shortlist-update"]
    assert all(job["concurrencyPolicy"] == "Forbid" for job in jobs.values())
    hourly = jobs["shortlist-update"]
    assert hourly["schedule"].endswith("* * * *")
    assert hourly["jobTemplate"]["spec"]["activeDeadlineSeconds"] < 3600
    pods_ = dict(pods("variants/pvc"))
    volumes = {volume["name"]: volume for volume in pods_["CronJob shortlist-update"]["volumes"]}
    scripts = {
        entry["metadata"]["name"]: entry["data"] for entry in of_kind("variants/pvc", "ConfigMap")
    }
    assert "update.sh" in scripts[volumes["jobs"]["configMap"]["name"]]


def test_the_rollout_may_change_one_configmap_and_nothing_else() -> None:
    [role] = of_kind("rollout", "Role")
    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": ["shortlist-models"],
            "verbs": ["get", "patch"],
        }
    ]


def test_the_operators_rules_are_those_that_promtool_tests() -> None:
    ours = yaml.safe_load((DOCKER / "monitoring/rules.yaml").read_text())
    theirs = yaml.safe_load((DOCKER / "kubernetes/monitoring/rules.yaml").read_text())
    assert theirs["spec"]["groups"] == ours["groups"]
