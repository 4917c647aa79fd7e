"""The example for KubeRay: KubeRay's schema accepts it, and its command is one of ours."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml

from vipsrv.cli.batch import batch_app
from vipsrv.cli.default_command import DEFAULT_COMMAND

EXAMPLE = Path(__file__).parents[2] / "examples" / "kuberay"
KUBERAY = "github.com/ray-project/kuberay/ray-operator@v1.5.0"
"""A Go module that has the definitions of KubeRay's resources, with all of Kubernetes' pods in them."""

Json = dict[str, Any]


@pytest.fixture(scope="module")
def job() -> Json:
    loaded: Json = yaml.safe_load((EXAMPLE / "rayjob.yaml").read_text())
    return loaded


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Json:
    """What the cluster would check a RayJob by, from the Go module proxy or its cache on this machine."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("go is not installed: the example is not checked by KubeRay's schema")
    done = subprocess.run(
        [go, "mod", "download", "-json", KUBERAY],
        cwd=tmp_path_factory.mktemp("module"),
        env={**os.environ, "GOFLAGS": "-mod=mod"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"{KUBERAY} cannot be had: the example is not checked by KubeRay's schema: {done.stdout}")
    file = Path(json.loads(done.stdout)["Dir"]) / "config" / "crd" / "bases" / "ray.io_rayjobs.yaml"
    definition = yaml.load(file.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - safe
    (found,) = [one for one in definition["spec"]["versions"] if one["name"] == "v1"]
    schema: Json = closed(found["schema"]["openAPIV3Schema"])
    return schema


def closed(schema: Any) -> Any:
    """The schema in which a field that is not known is an error, which Kubernetes would drop silently."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(value) for name, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("anyOf", None)
        made["type"] = ["integer", "string"]
    open_ended = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict) and not open_ended:
        made["additionalProperties"] = False
    return made


def faults(job: Json, schema: Json) -> list[str]:
    validator = jsonschema.Draft202012Validator(schema)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(job)]


def test_the_schema_of_kuberay_accepts_it(job: Json, schema: Json) -> None:
    assert "entrypoint" in schema["properties"]["spec"]["properties"]
    metadata = schema["properties"]["metadata"]  # Kubernetes checks it apart
    assert metadata == {"type": "object"}
    assert faults(job, schema) == []


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("entrypoint:", "entryPoint:", "entryPoint"),
        ("idleTimeoutSeconds: 60", "idleTimeoutSeconds: soon", "soon"),
        ("upscalingMode: Default", "upscalingMode: Sometimes", "Sometimes"),
        ("secretRef:", "secretReference:", "secretReference"),
        ("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: 3", "3"),
    ],
)
def test_the_schema_finds_mistakes(before: str, after: str, fault: str, schema: Json) -> None:
    text = (EXAMPLE / "rayjob.yaml").read_text()
    assert before in text
    assert fault in "\n".join(faults(yaml.safe_load(text.replace(before, after)), schema))


def test_its_command_is_one_of_ours(job: Json) -> None:
    program, command, *arguments = shlex.split(job["spec"]["entrypoint"])
    assert (program, command) == ("vipsrv", "batch")
    subcommand = typer.main.get_group(batch_app).commands[DEFAULT_COMMAND]
    found = subcommand.make_context(DEFAULT_COMMAND, list(arguments)).params
    assert found["engine"].value == "ray"
    assert found["address"] == "auto"
    group_spec = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert found["actors"] == group_spec["maxReplicas"]
    limits = group_spec["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert str(found["actor_cpus"]) == limits["cpu"]


def test_its_image_has_the_ray_that_it_states(job: Json) -> None:
    base = re.search(r"(?m)^FROM rayproject/ray:([\d.]+)-py312-cpu$", (EXAMPLE / "Dockerfile").read_text())
    assert base is not None
    assert base[1] == job["spec"]["rayClusterSpec"]["rayVersion"]


def test_its_credentials_are_no_part_of_it(job: Json) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for container in [one for group in groups for one in group["template"]["spec"]["containers"]]:
        assert container["envFrom"] == [{"secretRef": {"name": "vipsrv-storage"}}]
        assert [variable["name"] for variable in container["env"]] == ["AWS_REGION"]
