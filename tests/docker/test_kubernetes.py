"""The manifests for Kubernetes and the Helm chart: valid, alike in what matters, right about the server."""

import json
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from pydantic import ByteSize, TypeAdapter

from tests.support.promql import used_by
from vipsrv.server.configuration.environment import CONFIG_VARIABLE, PREFIX
from vipsrv.server.metrics.catalogue import QUEUE_LENGTH, exposed_names
from vipsrv.server.settings import ServerSettings
from vipsrv.version import __version__

Manifest = dict[str, Any]

KUBERNETES = Path(__file__).parents[2] / "docker" / "kubernetes"
CHART = KUBERNETES / "chart"
PROMETHEUS = KUBERNETES / "components" / "prometheus"
OLDEST, NEWEST = "1.25", kubernetes_validate.latest_version()
"""Versions of Kubernetes that have all that is used; the oldest is the chart's, too."""

KUBECTL, HELM, KUBECONFORM, GO = (shutil.which(name) for name in ("kubectl", "helm", "kubeconform", "go"))
needs_helm = pytest.mark.skipif(HELM is None, reason="helm is not installed")

KINDS = (
    *(
        "configmap-v1",
        "service-v1",
        "serviceaccount-v1",
        "deployment-apps-v1",
        "poddisruptionbudget-policy-v1",
    ),
    *("horizontalpodautoscaler-autoscaling-v2", "networkpolicy-networking-v1"),
)
"""The schemas that are needed, as kubeconform calls them."""

SECURED = (
    *("tokens.existingSecret=vipsrv-tokens", "tls.existingSecret=vipsrv-tls"),
    *("serviceMonitor.enabled=true", "autoscaling.queueLength=8"),
)
"""The values of the chart that make what the overlay for production makes."""


def run(*command: str | Path | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=120, check=False
    )


def kustomized(folder: str) -> list[Manifest]:
    """What kubectl would apply."""
    if KUBECTL is None:
        pytest.skip("kubectl is not installed")
    done = run(KUBECTL, "kustomize", KUBERNETES / folder)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def templated(*values: str, release: str = "vipsrv") -> list[Manifest]:
    """What Helm would install."""
    if HELM is None:
        pytest.skip("helm is not installed")
    sets = [argument for value in values for argument in ("--set", value)]
    done = run(HELM, "template", release, CHART, "--kube-version", OLDEST, *sets)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one is not None]


RENDERED: dict[str, Callable[[], list[Manifest]]] = {
    "base": lambda: kustomized("base"),
    "production": lambda: kustomized("overlays/production"),
    "chart": templated,
    "chart of another release": lambda: templated(release="shop"),
    "chart with secrets and metrics": lambda: templated(*SECURED),
}


@pytest.fixture(scope="module", params=list(RENDERED))
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return RENDERED[request.param]()


def only(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    """The one of this kind, whose name ends so."""
    (found,) = [one for one in manifests if one["kind"] == kind and one["metadata"]["name"].endswith(name)]
    return found


def pod_of(manifests: list[Manifest]) -> Manifest:
    found: Manifest = only(manifests, "Deployment")["spec"]["template"]["spec"]
    return found


def container_of(manifests: list[Manifest]) -> Manifest:
    (found,) = pod_of(manifests)["containers"]
    return dict(found)


def settings_of(manifests: list[Manifest]) -> ServerSettings:
    """The settings that the server of a pod would have. Each has to exist."""
    text = only(manifests, "ConfigMap")["data"]["vipsrv.toml"]
    variables = {one["name"]: one["value"] for one in container_of(manifests)["env"]}
    assert variables.pop(CONFIG_VARIABLE) == "/etc/vipsrv/vipsrv.toml"
    assert all(name.startswith(PREFIX) for name in variables)
    own = {name.removeprefix(PREFIX).lower(): value for name, value in variables.items()}
    found = {**tomllib.loads(text), **own}
    assert set(found) <= set(ServerSettings.model_fields)
    return ServerSettings(**found)


def size(text: str) -> int:
    """The bytes of a quantity of Kubernetes."""
    return TypeAdapter(ByteSize).validate_python(text.replace("i", "iB"))


# Tools that know Kubernetes


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_schemas_of_kubernetes_accept_it(manifests: list[Manifest], version: str) -> None:
    for manifest in manifests:
        if manifest["kind"] != "ServiceMonitor":
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where kubeconform finds the schemas that kubernetes-validate has, since it may load none here."""
    source = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{NEWEST}-local-strict"
    folder = tmp_path_factory.mktemp("schemas")
    for kind in (*KINDS, "_definitions"):
        text = (source / f"{kind}.json").read_text()
        text = text.replace('"/api/_definitions.json', f'"file://{folder}/_definitions.json')
        (folder / f"{kind}.json").write_text(text)
    return f"{folder}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"


def kubeconform(text: str, schemas: str, file: Path) -> subprocess.CompletedProcess[str]:
    if KUBECONFORM is None:
        pytest.skip("kubeconform is not installed")
    file.write_text(text)
    return run(KUBECONFORM, "-strict", "-skip", "ServiceMonitor", "-schema-location", schemas, file)


def test_kubeconform_accepts_it(manifests: list[Manifest], schemas: str, tmp_path: Path) -> None:
    done = kubeconform(yaml.safe_dump_all(manifests), schemas, tmp_path / "all.yaml")
    assert done.returncode == 0, done.stdout


def test_kubeconform_finds_a_field_that_does_not_exist(schemas: str, tmp_path: Path) -> None:
    text = (KUBERNETES / "base" / "deployment.yaml").read_text().replace("maxSurge", "maxSurges")
    assert kubeconform(text, schemas, tmp_path / "one.yaml").returncode == 1


@pytest.fixture(scope="module")
def service_monitor_schema() -> Manifest:
    """The schema of the newest Prometheus operator that is here as a Go module, without unknown fields."""
    if GO is None:
        pytest.skip("go is not installed")
    cache = Path(run(GO, "env", "GOMODCACHE").stdout.strip()) / "github.com" / "prometheus-operator"
    name = "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml"
    found = sorted(cache.glob(f"prometheus-operator@*/{name}"))
    if not found:
        pytest.skip("the Go module github.com/prometheus-operator/prometheus-operator is not here")
    definition = yaml.safe_load(found[-1].read_text())
    (version,) = definition["spec"]["versions"]
    schema: Manifest = closed(version["schema"]["openAPIV3Schema"])
    return schema


def closed(schema: Any) -> Any:
    """The schema without unknown properties in any object, as the API server prunes them."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(one) for name, one in schema.items()}
    if "properties" in found and found.get("type") == "object" and found["properties"].get("kind") is None:
        found.setdefault("additionalProperties", False)
    return found


@pytest.mark.parametrize("which", ["production", "chart with secrets and metrics"])
def test_the_prometheus_operator_accepts_the_service_monitor(
    which: str, service_monitor_schema: Manifest
) -> None:
    manifests = RENDERED[which]()
    monitor = only(manifests, "ServiceMonitor")
    jsonschema.validate(monitor, service_monitor_schema)
    monitor["spec"]["endpoints"][0]["prot"] = "ops"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(monitor, service_monitor_schema)


@needs_helm
def test_helm_finds_no_fault_in_the_chart() -> None:
    done = run(HELM, "lint", "--strict", CHART)
    assert done.returncode == 0, done.stdout


@needs_helm
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("replicas=4", "replicas"),
        ("drain=long", "drain"),
        ("image.digest=latest", "digest"),
        ("settings.drain=5", "settings.drain: the chart sets it itself"),
    ],
)
def test_the_chart_refuses_wrong_values(value: str, said: str) -> None:
    done = run(HELM, "template", "vipsrv", CHART, "--kube-version", OLDEST, "--set", value)
    assert done.returncode != 0
    assert said in done.stderr


@needs_helm
def test_the_chart_takes_a_digest_of_the_image() -> None:
    digest = "sha256:" + "0123456789abcdef" * 4
    image = container_of(templated(f"image.digest={digest}"))["image"]
    assert image == f"vipsrv:{__version__}@{digest}"


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


# What they say of the server


def test_all_selectors_find_the_pods(manifests: list[Manifest]) -> None:
    template = only(manifests, "Deployment")["spec"]["template"]
    labels = template["metadata"]["labels"].items()
    spec = only(manifests, "Deployment")["spec"]
    selectors = [
        spec["selector"]["matchLabels"],
        only(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(one["spec"]["selector"] for one in manifests if one["kind"] == "Service"),
        *(one["labelSelector"]["matchLabels"] for one in pod_of(manifests)["topologySpreadConstraints"]),
    ]
    assert len(selectors) == 7
    for selector in selectors:
        assert selector
        assert selector.items() <= labels
    for monitor in (one for one in manifests if one["kind"] == "ServiceMonitor"):
        service = only(manifests, "Service", "-pods")
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        # The alert rules and the dashboard know this job.
        assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "vipsrv"
        assert monitor["spec"]["endpoints"][0]["port"] in {one["name"] for one in service["spec"]["ports"]}
    target = only(manifests, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target["name"] == only(manifests, "Deployment")["metadata"]["name"]


def test_ports_are_those_on_which_the_server_listens(manifests: list[Manifest]) -> None:
    settings = settings_of(manifests)
    ports = {one["name"]: one["containerPort"] for one in container_of(manifests)["ports"]}
    addresses = zip(("images", "http", "ops"), (*settings.listen, settings.ops_listen), strict=True)
    assert ports == {name: int(address.rpartition(":")[2]) for name, address in addresses}
    assert all("0.0.0.0:" in address for address in (*settings.listen, settings.ops_listen))
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container_of(manifests)[name]["httpGet"]["port"] == "ops"
    for service in (one for one in manifests if one["kind"] == "Service"):
        assert all(one["targetPort"] in ports for one in service["spec"]["ports"])
    rules = only(manifests, "NetworkPolicy")["spec"]["ingress"]
    allowed = {port["port"]: "from" in rule for rule in rules for port in rule["ports"]}
    assert allowed == {"images": False, "http": False, "ops": True}


def test_a_pod_may_finish_and_keep_what_it_stores(manifests: list[Manifest]) -> None:
    settings, pod = settings_of(manifests), pod_of(manifests)
    assert pod["terminationGracePeriodSeconds"] >= settings.drain_delay + settings.drain + 5
    # kube-proxy and controllers of ingresses may take seconds to take a pod out.
    assert settings.drain_delay >= 5
    strategy = only(manifests, "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert (strategy["maxUnavailable"], strategy["maxSurge"]) == (0, 1)
    volumes = {one["name"]: one for one in pod["volumes"]}
    mounts = {one["mountPath"]: one["name"] for one in container_of(manifests)["volumeMounts"]}
    spool = size(volumes[mounts[str(settings.spool_dir)]]["emptyDir"]["sizeLimit"])
    assert settings.spool_disk < spool
    resources = container_of(manifests)["resources"]
    assert resources["limits"] == resources["requests"]
    assert spool + size(volumes["tmp"]["emptyDir"]["sizeLimit"]) < size(
        resources["limits"]["ephemeral-storage"]
    )
    assert "configMap" in volumes[mounts["/etc/vipsrv"]]
    for file in (settings.tokens, settings.tls_cert, settings.tls_key):
        assert file is None or "secret" in volumes[mounts[str(file.parent)]]


def test_a_pod_is_confined(manifests: list[Manifest]) -> None:
    """As the restricted policy of the Pod Security Standards asks, and more."""
    pod, container = pod_of(manifests), container_of(manifests)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert only(manifests, "NetworkPolicy")["spec"]["egress"] == []


def test_the_autoscaler_follows_a_metric_of_the_server() -> None:
    for which in ("production", "chart with secrets and metrics"):
        metrics = only(RENDERED[which](), "HorizontalPodAutoscaler")["spec"]["metrics"]
        names = [one["pods"]["metric"]["name"] for one in metrics if one["type"] == "Pods"]
        assert names == [QUEUE_LENGTH.name]
    (rule,) = yaml.safe_load((PROMETHEUS / "adapter-rules.yaml").read_text())["rules"]
    ((name, _),) = used_by(rule["seriesQuery"]).metrics
    assert name == QUEUE_LENGTH.name
    assert name in exposed_names()
    # The queues of both lanes are one number.
    assert QUEUE_LENGTH.labels == ("lane",)
    assert rule["metricsQuery"].startswith("sum(")


# The chart and the manifests


def comparable(manifests: list[Manifest]) -> Iterator[tuple[str, Any]]:
    """What has to be the same in both: everything but names, labels and where a setting is written."""
    text = json.dumps(manifests)
    for name in {one["metadata"]["name"] for one in manifests if one["kind"] == "ConfigMap"}:
        text = text.replace(f'"name": "{name}"', '"name": "vipsrv"')
    for one in sorted(json.loads(text), key=lambda one: (one["kind"], one["metadata"]["name"])):
        if one["kind"] == "ConfigMap":
            continue
        spec = without(one.get("spec", {}), "matchLabels", "selector", "metadata", "env", "image")
        if one["kind"] == "Service":
            spec.setdefault("type", "ClusterIP")
            if spec.get("clusterIP") == "None":
                yield "headless", one["metadata"]["name"]
        yield f"{one['kind']} {one['metadata']['name']}", spec
    yield "settings", settings_of(manifests)


def without(value: Any, *names: str) -> Any:
    """The value without members of these names, and with lists of named things in the order of the names."""
    if isinstance(value, dict):
        return {name: without(one, *names) for name, one in value.items() if name not in names}
    if isinstance(value, list):
        found = [without(one, *names) for one in value]
        named = all(isinstance(one, dict) and "name" in one for one in found)
        return sorted(found, key=lambda one: str(one["name"])) if named else found
    return value


@pytest.mark.parametrize(
    ("one", "other"), [("base", "chart"), ("production", "chart with secrets and metrics")]
)
def test_the_chart_makes_what_kustomize_makes(one: str, other: str) -> None:
    assert dict(comparable(RENDERED[one]())) == dict(comparable(RENDERED[other]()))
