"""The compose files: docker-compose accepts them, they fit HAProxy's configuration, and settings exist."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.haproxy import CONFIGURATION
from vipsrv.server.configuration.environment import PREFIX
from vipsrv.server.settings import ServerSettings

DOCKER = Path(__file__).parents[2] / "docker"
COMPOSE = DOCKER / "compose.yaml"
PROMETHEUS = DOCKER / "observability" / "prometheus"
SERVERS = ("server1", "server2", "server3")
OVERLAYS = ("compose.tls.yaml", "compose.tls-passthrough.yaml")

DOCKER_COMPOSE = shutil.which("docker-compose")


def services(folder: Path, *overlays: str) -> dict[str, dict[str, Any]]:
    """The services of the compose file, as docker-compose understands it and its overlays."""
    if DOCKER_COMPOSE is None:
        pytest.skip("docker-compose is not installed")
    command = [DOCKER_COMPOSE, "--project-directory", str(DOCKER)]
    for name in ("compose.yaml", *overlays):
        # docker-compose 1.29, which Debian has, does not know the project's name yet.
        (folder / name).write_text(re.sub("(?m)^name:.*", "", (DOCKER / name).read_text()))
        command += ["-f", str(folder / name)]
    done = subprocess.run([*command, "config"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = yaml.safe_load(done.stdout)["services"]
    return found


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    """The compose file as it is written."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


def test_the_settings_of_the_servers_exist(written: dict[str, Any]) -> None:
    variables = set(written["x-server"]["environment"])
    for name in OVERLAYS:
        for service in yaml.safe_load((DOCKER / name).read_text())["services"].values():
            variables |= set(service["environment"])
    of_servers = {one for one in variables if one.startswith(PREFIX)}
    assert "VIPSRV_TLS_CERT" in of_servers
    assert of_servers <= {PREFIX + name.upper() for name in ServerSettings.model_fields}


def test_there_is_one_compose_file(written: dict[str, Any]) -> None:
    # compose.yml beside compose.yaml would be passed over, and nobody would notice.
    assert {path.name for path in DOCKER.glob("*compose*")} == {"compose.yaml", *OVERLAYS}
    default = {name for name, service in written["services"].items() if "profiles" not in service}
    assert default == {"haproxy", *SERVERS}


def test_haproxy_finds_the_servers_and_they_trust_it_alone(written: dict[str, Any]) -> None:
    configuration = CONFIGURATION.read_text()
    servers = written["x-server"]["environment"]
    listen = dict(zip(("SERVER", "HTTP"), re.findall(r":(\d+)", servers["VIPSRV_LISTEN"]), strict=True))
    for number, name in enumerate(SERVERS, start=1):
        for kind, port in listen.items():
            assert f"presetenv {kind}{number} {name}:{port}\n" in configuration
    haproxy = written["services"]["haproxy"]
    assert haproxy["networks"]["servers"]["ipv4_address"] == servers["VIPSRV_TRUSTED_PROXIES"]
    inside = [port.rpartition(":")[2] for port in haproxy["ports"]]
    assert inside == re.findall(r"presetenv \w+_BIND :(\d+)", configuration)
    # Only HAProxy and Prometheus are reached from outside of the servers' network.
    networks = {name: set(one["networks"]) for name, one in written["services"].items()}
    assert {name for name, one in networks.items() if "servers" in one} == {"haproxy", "prometheus", *SERVERS}
    assert written["networks"]["servers"]["internal"] is True


def test_a_server_may_finish_before_it_is_killed(written: dict[str, Any]) -> None:
    server = written["x-server"]
    delay = float(server["environment"]["VIPSRV_DRAIN_DELAY"])
    drain = ServerSettings.model_fields["drain"].default
    assert int(server["stop_grace_period"].removesuffix("s")) > delay + drain
    ((interval, unit),) = re.findall(r"default-server .*\binter (\d+)(ms|s)\b", CONFIGURATION.read_text())
    assert delay > 2 * int(interval) / {"ms": 1000, "s": 1}[unit]


def test_images_have_versions_and_what_is_mounted_is_there(written: dict[str, Any]) -> None:
    for name, service in written["services"].items():
        if name not in SERVERS:
            assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+(\.\d+)?", service["image"])
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert (DOCKER / source).is_dir() if source.startswith(".") else source in written["volumes"]
    for name in ("prometheus", "grafana"):
        assert written["services"][name]["profiles"] == ["observability"]
        assert all(port.startswith("127.0.0.1:") for port in written["services"][name]["ports"])


def test_prometheus_scrapes_the_servers(written: dict[str, Any]) -> None:
    configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    (scraped,) = configuration["scrape_configs"]
    targets = [target for one in scraped["static_configs"] for target in one["targets"]]
    _, _, port = written["x-server"]["environment"]["VIPSRV_OPS_LISTEN"].partition(":")
    assert targets == [f"{name}:{port}" for name in SERVERS]
    assert scraped["job_name"] == "vipsrv"
    assert [(PROMETHEUS / file).is_file() for file in configuration["rule_files"]] == [True]


@pytest.mark.parametrize("overlay", [None, *OVERLAYS])
def test_docker_compose_accepts_it(overlay: str | None, written: dict[str, Any], tmp_path: Path) -> None:
    found = services(tmp_path) if overlay is None else services(tmp_path, overlay)
    assert set(found) == set(written["services"])
    for name in SERVERS:
        assert found[name]["environment"]["VIPSRV_OPS_LISTEN"] == "0.0.0.0:9464"
    tls = "VIPSRV_TLS_CERT" in found["server1"]["environment"]
    assert tls == (overlay == "compose.tls-passthrough.yaml")
    assert (
        found["haproxy"].get("environment", {}).get("TLS")
        == ({None: None, OVERLAYS[0]: "termination", OVERLAYS[1]: "passthrough"}[overlay])
    )
