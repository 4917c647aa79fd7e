"""Which variables are settings, which are not, and which are refused."""

import re
from pathlib import Path

import pytest

from vipsrv.batch.stores.object_place import RETRY_VARIABLE
from vipsrv.server.configuration.environment import named_file, read_environment
from vipsrv.server.settings import ServerSettings

ROOT = Path(__file__).parents[3]

SERVICE_LINKS = {
    "VIPSRV_PORT": "tcp://10.96.0.1:65432",
    "VIPSRV_PORT_65432_TCP": "tcp://10.96.0.1:65432",
    "VIPSRV_PORT_65432_TCP_ADDR": "10.96.0.1",
    "VIPSRV_PORT_65432_TCP_PORT": "65432",
    "VIPSRV_PORT_65432_TCP_PROTO": "tcp",
    "VIPSRV_SERVICE_HOST": "10.96.0.1",
    "VIPSRV_SERVICE_PORT": "65432",
    "VIPSRV_SERVICE_PORT_IMAGES": "65432",
}
"""What Kubernetes sets in the containers beside a Service named vipsrv."""


def read(**environment: str) -> tuple[dict[str, object], list[str]]:
    given, faults = read_environment(environment, ServerSettings.model_fields)
    return {name: one.value for name, one in given.items()}, faults


def test_an_empty_variable_makes_no_setting() -> None:
    names = [f"VIPSRV_{name.upper()}{end}" for name in ServerSettings.model_fields for end in ("", "_FILE")]
    assert read(**dict.fromkeys([*names, "VIPSRV_UNKNOWN"], "")) == ({}, [])


def test_the_case_of_a_variable_makes_no_difference() -> None:
    assert read(vipsrv_port="1", Vipsrv_Nonsense="1") == (
        {"port": "1"},
        ["VIPSRV_NONSENSE: there is no such variable"],
    )


def test_a_variable_in_two_cases_is_refused_unless_both_say_the_same() -> None:
    fault = "VIPSRV_PORT: it is set twice, in upper and in lower case; unset one of them"
    assert read(vipsrv_port="1", VIPSRV_PORT="2")[1] == [fault]
    assert read(vipsrv_port="1", VIPSRV_PORT="1") == ({"port": "1"}, [])


def test_the_case_of_the_variable_for_the_file_makes_no_difference() -> None:
    assert named_file({"vipsrv_config": "a.toml"}) == Path("a.toml")
    assert named_file({"VIPSRV_CONFIG": ""}) is None


def test_a_variable_of_a_batch_makes_no_setting() -> None:
    """A batch starts its server with its own environment."""
    assert read(**{RETRY_VARIABLE: "5"}) == ({}, [])


@pytest.mark.parametrize("service", ["", "METRICS_", "A_PORT_"])
def test_a_kubernetes_service_makes_no_setting(service: str) -> None:
    links = {name.replace("VIPSRV_", f"VIPSRV_{service}", 1): value for name, value in SERVICE_LINKS.items()}
    assert read(**links) == ({}, [])
    assert read(**links, VIPSRV_QUEUE="1") == ({"queue": "1"}, [])


def test_a_port_that_is_no_service_link_is_a_setting() -> None:
    assert read(VIPSRV_PORT="tcp") == ({"port": "tcp"}, [])
    assert read(VIPSRV_METRICS_PORT="9") == ({}, ["VIPSRV_METRICS_PORT: there is no such variable"])


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("VIPSRV_WORKER", "VIPSRV_WORKERS"),
        ("VIPSRV_CONIFG", "VIPSRV_CONFIG"),
        ("VIPSRV_SPOOLDIR_FILE", "VIPSRV_SPOOL_DIR_FILE"),
    ],
)
def test_an_unknown_variable_is_refused(variable: str, meant: str) -> None:
    assert read(**{variable: "x"}) == ({}, [f"{variable}: there is no such variable; did you mean {meant}?"])


def test_a_setting_and_its_file_exclude_each_other(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(" 7\n\n")
    assert read(VIPSRV_QUEUE_FILE=str(secret)) == ({"queue": "7"}, [])
    assert read(VIPSRV_QUEUE_FILE=str(secret), VIPSRV_QUEUE="") == ({"queue": "7"}, [])
    faults = read(VIPSRV_QUEUE_FILE=str(secret), VIPSRV_QUEUE="8")[1]
    assert faults == ["VIPSRV_QUEUE_FILE: VIPSRV_QUEUE is set as well; unset one of them"]
    link = SERVICE_LINKS["VIPSRV_PORT"]
    assert read(VIPSRV_PORT_FILE=str(secret), VIPSRV_PORT=link) == ({"port": "7"}, [])


def test_an_empty_secret_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("\n")
    assert read(VIPSRV_QUEUE_FILE=str(secret)) == ({}, [f"VIPSRV_QUEUE_FILE: {secret}: the file is empty"])


def test_every_variable_that_the_code_names_is_known() -> None:
    """A server must not refuse to start because of a variable that another part of vipsrv reads."""
    sources = [*ROOT.glob("vipsrv/**/*.py"), *ROOT.glob("bench/**/*.py"), ROOT / "docker" / "Dockerfile"]
    named = {
        variable
        for path in sources
        for variable in re.findall(r"\bVIPSRV_[A-Z0-9_]+[A-Z0-9]\b", path.read_text())
        if not variable.startswith(("VIPSRV_SERVICE", "VIPSRV_X_"))  # examples in texts
    }
    assert {"VIPSRV_PORT", "VIPSRV_TOKEN", "VIPSRV_BENCH_CACHE"} <= named
    faults = [fault for variable in sorted(named) for fault in read(**{variable: "/dev/null"})[1]]
    assert [fault for fault in faults if "there is no such variable" in fault] == []
