"""The files for Kubernetes have the fields that Kubernetes and KubeRay know, and no others.

Objects of Kubernetes, and the pods inside of KubeRay's, are checked by the API's own schemas, strictly. KubeRay's
definition of a RayJob is in no package of a registry, so its fields stand here, by hand.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from dist_gat.cli.main import app
from dist_gat.server.request_guard import WITHOUT_TOKEN
from dist_gat.server.server_settings import ServerSettings

LAUNCH = Path(__file__).parent.parent.parent / "launch"
KUBERNETES = "1.31"


def record(required: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


TEXT, WHOLE, YES_NO = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
ANY = {"type": "object"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
GROUP = {"rayStartParams": TEXTS, "template": ANY}
RAY_CLUSTER = record(
    ("headGroupSpec",),
    rayVersion=TEXT,
    # since KubeRay 1.5.1
    authOptions=record(("mode",), mode={"enum": ["token", "disabled"]}),
    enableInTreeAutoscaling=YES_NO, autoscalerOptions=ANY, gcsFaultToleranceOptions=ANY, suspend=YES_NO,
    headServiceAnnotations=TEXTS, managedBy=TEXT,
    headGroupSpec=record(
        ("rayStartParams", "template"), serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
        headService=ANY, enableIngress=YES_NO, **GROUP,
    ),
    workerGroupSpecs={"type": "array", "minItems": 1, "items": record(
        ("groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"), groupName=TEXT, replicas=WHOLE,
        minReplicas=WHOLE, maxReplicas=WHOLE, numOfHosts=WHOLE, idleTimeoutSeconds=WHOLE, suspend=YES_NO,
        scaleStrategy=ANY, **GROUP,
    )},
)  # fmt: skip
RAY_JOB = record(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "ray.io/v1"}, kind={"const": "RayJob"}, metadata=ANY,
    spec=record(
        ("entrypoint", "rayClusterSpec"), entrypoint=TEXT, rayClusterSpec=RAY_CLUSTER, shutdownAfterJobFinishes=YES_NO,
        ttlSecondsAfterFinished=WHOLE, activeDeadlineSeconds=WHOLE, backoffLimit=WHOLE, submissionMode={
            "enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]
        }, submitterPodTemplate=ANY, submitterConfig=ANY, runtimeEnvYAML=TEXT, jobId=TEXT, metadata=TEXTS,
        clusterSelector=TEXTS, entrypointNumCpus=WHOLE, entrypointNumGpus=WHOLE, entrypointResources=TEXT,
        suspend=YES_NO, managedBy=TEXT,
    ),
)  # fmt: skip


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((LAUNCH / name).read_text(encoding="utf-8")))


def check_job(job: dict[str, Any]) -> None:
    """Raise `ValidationError` for a field that is none, and in the pods too."""
    jsonschema.validate(job, RAY_JOB)
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        template = group["template"]
        metadata = {"name": "pod", **template.get("metadata", {})}
        check_object({**template, "apiVersion": "v1", "kind": "Pod", "metadata": metadata})


def check_object(found: dict[str, Any]) -> None:
    kubernetes_validate.validate(found, KUBERNETES, strict=True)


def test_the_training_job_has_the_fields_of_kuberay_and_its_pods_those_of_kubernetes() -> None:
    (job,) = documents("kuberay.yaml")
    check_job(job)
    cluster = job["spec"]["rayClusterSpec"]
    worker = cluster["workerGroupSpecs"][0]
    # all workers that the recipe wants, each with the cores of its threads
    assert f"launch.num_workers={worker['replicas']} " in job["spec"]["entrypoint"]
    limits = worker["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert job["spec"]["entrypoint"].endswith(f"launch.threads_per_worker={limits['cpu']}")
    for group in (cluster["headGroupSpec"], worker):
        told = group["template"]["metadata"]["annotations"]
        assert told["prometheus.io/port"] == group["rayStartParams"]["metrics-export-port"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "rayClusterSpecs"), {}),
        (("spec", "ttlSecondsAfterFinished"), "600"),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0, "volumeMount"), []),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "ports"), [{}]),
    ],
)
def test_a_wrong_field_is_found(path: tuple[Any, ...], value: Any) -> None:
    job = copy.deepcopy(documents("kuberay.yaml")[0])  # whose anchors are one object
    place = job
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        check_job(job)


def test_the_ray_of_the_job_is_one_that_the_package_takes() -> None:
    import ray

    assert documents("kuberay.yaml")[0]["spec"]["rayClusterSpec"]["rayVersion"] == ray.__version__


def test_the_server_has_the_fields_of_kubernetes_and_the_paths_and_options_of_serve() -> None:
    deployment, service, budget = documents("serve.yaml")
    for found in (deployment, service, budget):
        check_object(found)
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    probed = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert probed == set(WITHOUT_TOKEN), "a probe has no token"
    known = {option for one in get_command(app).commands["serve"].params for option in one.opts}  # type: ignore[attr-defined]
    options = dict(word.split("=") for word in container["args"] if word.startswith("--"))
    assert options.keys() <= known
    port = options["--port"]
    assert {port} == {str(one["containerPort"]) for one in container["ports"]}
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == port
    assert options["--threads"] == container["resources"]["limits"]["cpu"]
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert options["--token-file"] == f"{mounts['token']}/token"
    assert mounts.keys() == {one["name"] for one in pod["spec"]["volumes"]}
    drain_s = ServerSettings.model_fields["drain_s"].default
    assert pod["spec"]["terminationGracePeriodSeconds"] > drain_s + 5
    labels = pod["metadata"]["labels"]
    for selector in (deployment["spec"]["selector"]["matchLabels"], service["spec"]["selector"]):
        assert selector == labels
    assert budget["spec"]["selector"]["matchLabels"] == labels
    # what the comment says is what the pod reads
    (secret,) = re.findall(r"kubectl create secret generic (\S+)", (LAUNCH / "serve.yaml").read_text(encoding="utf-8"))
    assert {"secretName": secret, "defaultMode": 0o440} in [one.get("secret") for one in pod["spec"]["volumes"]]


def test_a_field_that_kubernetes_does_not_know_is_found() -> None:
    deployment = documents("serve.yaml")[0]
    deployment["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(jsonschema.ValidationError):
        check_object(deployment)
