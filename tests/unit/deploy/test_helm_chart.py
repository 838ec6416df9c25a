"""The Helm chart: it renders, Kubernetes takes what it renders, and each pod may do no more than it needs."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import helm_python
import kubernetes_validate
import pytest
import yaml

from opstream._version import __version__

pytestmark = pytest.mark.unit

CHART: Final = Path(__file__).resolve().parents[3] / "deploy" / "helm" / "opstream"
KUBERNETES: Final = ("1.27", "1.31", "1.37")
INFORMATION: Final = 1
"""Severity of a finding of helm's linter that asks for nothing."""
FOREIGN: Final = {"ScaledObject", "PodMonitor"}
"""Kinds of KEDA and of the Prometheus operator, whose schemas are not Kubernetes'."""
COMPONENTS: Final = {"api", "projector", "webhooks", "runner-bookshelf", "runner-video"}

SMALL: Final[dict[str, Any]] = {"api": {"insecure": True}, "provision": {"replicas": 1}}
WHOLE: Final[dict[str, Any]] = {
    "image": {"tag": "0.9.9"},
    "imagePullSecrets": [{"name": "pull"}],
    "nats": {
        "urls": ["tls://n1:4222", "tls://n2:4222"],
        "keysSecret": "opstream-broker",
        "tls": {"caSecret": "broker-ca", "clientSecret": "opstream-tls"},
    },
    "index": {"urlSecret": "opstream-index"},
    "provision": {"maxAge": "90d", "maxBytes": "100GiB", "archive": True, "extraArgs": ["--max-result", "128KiB"]},
    "api": {
        "auth": ["keys"],
        "publicUrl": "https://api.example.com",
        "allowedHosts": ["api.example.com"],
        "trustedProxies": ["10.0.0.0/8"],
        "identityHeader": "X-User",
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "ingress": {"enabled": True, "className": "nginx", "host": "api.example.com", "tlsSecret": "api-tls"},
        "autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 5, "cpuPercent": 60},
    },
    "runners": [
        {
            "name": "bookshelf",
            "actions": ["bookshelf.actions"],
            "concurrency": 64,
            "drainSeconds": 120,
        },
        {
            "name": "video",
            "actions": ["video.cut", "video.join"],
            "concurrency": 2,
            "drainSeconds": 600,
            "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "10Gi"}}],
            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
            "autoscaling": {
                "kind": "keda",
                "minReplicas": 0,
                "maxReplicas": 9,
                "prometheusUrl": "http://prometheus:9090",
                "actions": ["video:cut", "video:join"],
                "oldestWaitingSeconds": 30,
            },
        },
    ],
    "webhooks": {"callbackHosts": ["hooks.example.com"], "configSecret": "opstream-webhooks"},
    "networkPolicy": {"apiFrom": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}]},
    "metrics": {"podMonitor": True},
}

Manifest = dict[str, Any]


def render(values: dict[str, Any]) -> list[Manifest]:
    """The objects that helm makes of the chart with some values."""
    with helm_python.Chart.load(str(CHART)) as chart:
        files = chart.render(values, name="shop", namespace="orders")
    texts = [text for name, text in files.items() if name.endswith(".yaml")]
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


@pytest.fixture(scope="module")
def whole() -> list[Manifest]:
    """Everything switched on."""
    return render(WHOLE)


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """The component and the pod template of each deployment and job."""
    for one in manifests:
        if one["kind"] in {"Deployment", "Job"}:
            template = one["spec"]["template"]
            yield template["metadata"]["labels"]["app.kubernetes.io/component"], template["spec"]


def named(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    """The objects of a kind by name."""
    return {one["metadata"]["name"]: one for one in manifests if one["kind"] == kind}


def test_helm_finds_nothing_to_complain_of() -> None:
    """The linter of helm finds no errors and no warnings; the chart is of this version of opstream."""
    findings = helm_python.lint(str(CHART), SMALL)
    assert [one for one in findings["messages"] if one["severity"] > INFORMATION] == []
    described = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (described["version"], described["appVersion"]) == (__version__, __version__)


@pytest.mark.parametrize("values", [SMALL, WHOLE], ids=["small", "whole"])
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_each_object(values: dict[str, Any], version: str) -> None:
    """Each object is valid for old and new versions, without a member that they do not know."""
    manifests = render(values)
    assert {one["metadata"]["name"] for one in manifests} > {"shop-api", "shop-projector", "shop-webhooks"}
    for one in manifests:
        if one["kind"] not in FOREIGN:
            kubernetes_validate.validate(one, version, strict=True)


def test_each_pod_may_do_little(whole: list[Manifest]) -> None:
    """No root, no rights, no token, nothing to write to but what was asked for, bounded memory."""
    found = dict(pods(whole))
    assert found.keys() == COMPONENTS | {"provision"}
    for spec in found.values():
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]


def test_each_pod_has_the_key_of_its_role_only(whole: list[Manifest]) -> None:
    """A stolen runner has a runner's key, not the projector's that lies in the same secret."""
    for component, spec in pods(whole):
        role = {"provision": "admin"}.get(component, component.partition("-")[0])
        secrets = [one["secret"] for one in spec["volumes"] if one["name"] == "nats"]
        assert [one["items"] for one in secrets] == [[{"key": f"{role}.nk", "path": "role.nk"}]]


@pytest.mark.parametrize(
    ("index", "variable"),
    [
        ({"urlSecret": "opstream-index"}, {"valueFrom": {"secretKeyRef": {"name": "opstream-index", "key": "url"}}}),
        ({"url": "postgresql://opstream@db/opstream"}, {"value": "postgresql://opstream@db/opstream"}),
        ({}, None),
    ],
)
def test_only_projector_and_api_reach_the_index(index: dict[str, str], variable: dict[str, Any] | None) -> None:
    """They have its URL, and their policies let them connect to its port; no other pod has either."""
    manifests = render({**SMALL, "index": index})
    with_index = {"api", "projector"} if variable else set()
    for component, spec in pods(manifests):
        found = [one for one in spec["containers"][0]["env"] if one["name"] == "OPSTREAM_INDEX"]
        assert found == ([{"name": "OPSTREAM_INDEX", **(variable or {})}] if component in with_index else [])
    for name, one in named(manifests, "NetworkPolicy").items():
        ports = [port["port"] for rule in one["spec"]["egress"] for port in rule.get("ports", [])]
        assert (5432 in ports) == (name.removeprefix("shop-") in with_index)


def test_a_stop_has_time_for_the_drain(whole: list[Manifest]) -> None:
    """Kubernetes kills a runner only after its drain, and what it needs to release the rest."""
    found = dict(pods(whole))
    for component, drain in (("runner-bookshelf", 120), ("runner-video", 600)):
        spec = found[component]
        assert f"--drain={drain}s" in spec["containers"][0]["args"]
        assert spec["terminationGracePeriodSeconds"] >= drain + 10


def test_each_option_exists(whole: list[Manifest]) -> None:
    """The commands of this version know each option that the chart gives them."""
    for _, spec in pods(whole):
        command, *options = spec["containers"][0]["args"]
        module = import_module(f"opstream.cli.commands.{command}")
        known = {name for param in getattr(module, command).params for name in param.opts}
        assert {option.partition("=")[0] for option in options if option.startswith("--")} <= known


def test_probes_ask_the_port_that_is_served(whole: list[Manifest]) -> None:
    """Each long-running pod is probed on its health port, which its arguments open."""
    for component, spec in pods(whole):
        if component == "provision":
            continue
        container = spec["containers"][0]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert f"--health-port={ports['health']}" in container["args"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["port"] == "health"
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


@pytest.mark.parametrize("kind", ["PodDisruptionBudget", "NetworkPolicy"])
def test_each_deployment_is_covered(whole: list[Manifest], kind: str) -> None:
    """A disruption budget and a network policy select the pods of each deployment, and no others."""
    labels = {
        name: one["spec"]["template"]["metadata"]["labels"].items() for name, one in named(whole, "Deployment").items()
    }
    covering = named(whole, kind)
    assert covering.keys() >= labels.keys()
    for name, one in covering.items():
        selector = (one["spec"].get("selector") or one["spec"].get("podSelector"))["matchLabels"].items()
        assert [other for other, found in labels.items() if selector <= found] == ([name] if name in labels else [])


def test_only_the_api_is_reached(whole: list[Manifest]) -> None:
    """From outside, the API's port and the health ports are open; webhooks and runners may connect to anywhere."""
    for name, one in named(whole, "NetworkPolicy").items():
        open_ports = [port["port"] for rule in one["spec"]["ingress"] for port in rule["ports"]]
        expected = {"shop-api": ["http", "health"], "shop-provision": []}.get(name, ["health"])
        assert open_ports == expected
        is_anywhere = {} in one["spec"]["egress"]
        assert is_anywhere == (name.startswith("shop-runner") or name == "shop-webhooks")


def test_consumers_exist_before_anything_scales(whole: list[Manifest]) -> None:
    """The job that makes the consumers of all actions runs before each installation and update."""
    job = named(whole, "Job")["shop-provision"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert {one for one in arguments if one.startswith("--actions")} == {
        "--actions=bookshelf.actions",
        "--actions=video.cut",
        "--actions=video.join",
    }


def test_runners_scale_by_what_waits(whole: list[Manifest]) -> None:
    """KEDA asks Prometheus how long the oldest operation of these actions has waited."""
    scaled = named(whole, "ScaledObject")["shop-runner-video"]["spec"]
    (trigger,) = scaled["triggers"]
    assert trigger["metadata"]["query"] == (
        'max(opstream_oldest_waiting_seconds{namespace="orders",action=~"video:cut|video:join"}) or vector(0)'
    )
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (0, 9)
    assert "replicas" not in named(whole, "Deployment")["shop-runner-video"]["spec"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "say how the API knows who asks"),
        ({**SMALL, "replica": 3}, "replica"),
        ({**SMALL, "provision": {"replicas": 2}}, "replicas"),
        ({**SMALL, "nats": {"urls": ["nats://user:secret@n1:4222"]}}, "urls"),
        ({**SMALL, "index": {"url": "postgresql://user:secret@db/opstream"}}, "url"),
        ({**SMALL, "index": {"url": "sqlite:/data/index.db"}}, "url"),
        ({"api": {"insecure": True, "ingress": {"enabled": True}}}, "api.ingress.host"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], said: str) -> None:
    """A value that is missing, misspelled or impossible ends the installation before anything is made."""
    with pytest.raises(helm_python.HelmError, match=said):
        render(values)
