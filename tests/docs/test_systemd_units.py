"""The units of examples/systemd: systemd knows each option, and the server each flag and variable."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support.running_server import RunningServer
from vipsrv.server.connections.served import DRAIN_SECONDS
from vipsrv.server.descriptors import needed
from vipsrv.server.settings import ServerSettings
from vipsrv.workers.child.sandbox.system_calls import ALLOWED

UNITS = Path(__file__).parents[2] / "examples" / "systemd"
MOST_EXPOSED = 15
"""The highest rating by ``systemd-analyze security`` that is accepted, in tenths; 100 is no protection."""

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd is not installed")


def unit(name: str) -> dict[str, list[str]]:
    options = defaultdict(list)
    for line in (UNITS / name).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            option, _, value = line.partition("=")
            options[option].append(value)
    return options


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    return subprocess.run(
        [ANALYZE, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """Copies whose command exists."""
    for name in ("vipsrv.service", "vipsrv.socket"):
        text = (UNITS / name).read_text()
        (tmp_path / name).write_text(text.replace("/opt/vipsrv/bin/vipsrv", sys.executable))
    return [str(tmp_path / name) for name in ("vipsrv.service", "vipsrv.socket")]


@needs_systemd
def test_systemd_knows_every_option(units: list[str]) -> None:
    done = analyze("verify", "--man=no", *units)
    assert (done.returncode, done.stdout) == (0, "")
    assert not [line for line in done.stderr.splitlines() if "vipsrv" in line]


@needs_systemd
def test_the_lines_for_tokens_and_tls_are_valid(units: list[str]) -> None:
    page = (UNITS.parents[1] / "docs" / "operations" / "systemd.md").read_text()
    for unit in units:
        lines = page.partition(f'```ini title="{Path(unit).name}"\n')[2].partition("```")[0]
        assert lines
        folder = Path(f"{unit}.d")
        folder.mkdir()
        (folder / "override.conf").write_text(lines)
    done = analyze("verify", "--man=no", *units)
    assert (done.returncode, done.stdout) == (0, "")
    assert not [line for line in done.stderr.splitlines() if "override" in line]
    settings = tomllib.loads(page.partition('```toml title="/etc/vipsrv.toml"\n')[2].partition("```")[0])
    assert settings.keys() == {"tokens", "tls_cert", "tls_key"}
    assert settings.keys() <= ServerSettings.model_fields.keys()


@needs_systemd
def test_a_misspelt_option_is_found(units: list[str]) -> None:
    path = Path(units[0])
    path.write_text(path.read_text().replace("ProtectHome=", "ProtectHouse="))
    done = analyze("verify", "--man=no", *units)
    assert "ProtectHouse" in done.stderr


@needs_systemd
def test_the_service_is_hardened(units: list[str]) -> None:
    if "--offline" not in analyze("--help").stdout:
        pytest.skip("this systemd cannot rate a file")
    done = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", units[0])
    assert done.returncode == 0, done.stdout[-200:]


@needs_systemd
def test_workers_can_confine_themselves_within_the_filter_of_system_calls() -> None:
    def calls(names: list[str]) -> set[str]:
        found: set[str] = set()
        for name in names:
            if not name.startswith("@"):
                found.add(name)
                continue
            listed = re.findall(r"^ +(@?[\w-]+)$", analyze("syscall-filter", name).stdout, re.MULTILINE)
            assert listed, name
            found |= calls(listed)
        return found

    (words,) = unit("vipsrv.service")["SystemCallFilter"]
    allowed = calls(words.split())
    landlock = {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"}
    # What the sandbox and the gateway call besides (strace).
    assert {*landlock, "seccomp", "prctl", "memfd_create", "splice", "sched_setaffinity", "vfork"} <= allowed
    assert set(ALLOWED) <= allowed


def test_the_command_and_the_variables_are_those_of_the_server(tmp_path: Path) -> None:
    options = unit("vipsrv.service")
    program, command, *flags = options["ExecStart"][0].split()
    assert (program, command) == ("/opt/vipsrv/bin/vipsrv", "serve")
    variables = dict(value.split("=", 1) for value in options["Environment"])
    known = {f"VIPSRV_{name.upper()}" for name in ServerSettings.model_fields}
    assert set(variables) <= known
    (folder,) = options["CacheDirectory"]
    assert variables["VIPSRV_SPOOL_DIR"] == f"/var/cache/{folder}"
    with RunningServer(*flags, environment={**variables, "VIPSRV_SPOOL_DIR": str(tmp_path)}):
        pass


def test_the_numbers_fit_the_defaults_of_the_server() -> None:
    options, settings = unit("vipsrv.service"), ServerSettings()
    assert float(options["TimeoutStopSec"][0]) > settings.drain + DRAIN_SECONDS
    assert int(options["LimitNOFILE"][0]) >= needed(settings.model_copy(update={"workers": 256}))
    assert options["OOMPolicy"] == ["continue"]
    # The server could not see its workers.
    assert not {"ProtectProc", "ProcSubset"} & set(options)
