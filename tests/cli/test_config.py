"""`vipsrv config`, and the other commands with a TOML file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import bare_client
from tests.support.running_server import RunningServer
from vipsrv.server.configuration.documents import example_file, json_schema
from vipsrv.server.settings import ServerSettings


def vipsrv(*arguments: str, folder: Path | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VIPSRV_")}
    return subprocess.run(
        [sys.executable, "-m", "vipsrv", *arguments],
        capture_output=True,
        text=True,
        timeout=bare_client.SECONDS,
        check=False,
        cwd=folder,
        env={**kept, "PYTHONPATH": str(Path(__file__).parents[2]), **settings},
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A TOML file with a setting that shows that it was read."""
    path = tmp_path / "vipsrv.toml"
    path.write_text('\nqueue = 7\nlisten = ["unix:/run/a", "[::1]:7"]\nworkers = 1\nport = 5\n')
    return path


def test_each_setting_with_its_value_and_origin(config: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    ended = vipsrv(
        *("config", "--config", str(config), "--port", "9", "--no-pin-workers"),
        VIPSRV_WORKERS="3",
        VIPSRV_USER_FILE=str(secret),
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    first, *rows = ended.stdout.splitlines()
    assert first == f"file: {config}"
    columns = {row.split()[0]: row.split(maxsplit=1)[1] for row in rows}
    assert list(columns) == list(ServerSettings.model_fields)
    assert {name: " ".join(columns[name].split()) for name in columns if "default" not in columns[name]} == {
        "port": "9 --port",
        "listen": f'["unix:/run/a", "[::1]:7"] {config}:3',
        "workers": "3 VIPSRV_WORKERS",
        "pin_workers": "false --pin-workers",
        "queue": f"7 {config}:2",
        "user": "(secret) VIPSRV_USER_FILE",
    }
    assert columns["max_upload"].split() == ['"2GiB"', "default"]


def test_the_same_as_json(config: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    ended = vipsrv("config", "--json", "--config", str(config), "--drain", "1", VIPSRV_USER_FILE=str(secret))
    assert "hunter2" not in ended.stdout
    printed = json.loads(ended.stdout)
    assert printed["file"] == str(config)
    settings = printed["settings"]
    assert list(settings) == list(ServerSettings.model_fields)
    assert settings["queue"] == {
        "value": 7, "secret": False, "source": "file", "place": f"{config}:2", "reloadable": True,
    }  # fmt: skip
    assert settings["listen"]["value"] == ["unix:/run/a", "[::1]:7"]
    assert (settings["user"]["value"], settings["user"]["secret"]) == (None, True)
    assert (settings["drain"]["value"], settings["drain"]["source"]) == (1.0, "flag")
    assert (settings["max_upload"]["value"], settings["max_upload"]["source"]) == (2 << 30, "default")
    assert settings["port"]["reloadable"] is False


def test_the_example_and_the_schema_are_printed() -> None:
    assert vipsrv("config", "--example").stdout == example_file()
    assert json.loads(vipsrv("config", "--schema").stdout) == json_schema()


@pytest.mark.parametrize("command", ["config", "serve", "doctor", "formats"])
def test_all_faults_end_the_command_with_2(config: Path, command: str) -> None:
    config.write_text("queue = -1\nwrokers = 1\n")
    ended = vipsrv(command, "--config", str(config), VIPSRV_SPOOL_DISC="1")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines() == [
        f"vipsrv: {config}:2: wrokers: there is no such setting; did you mean workers?",
        "vipsrv: VIPSRV_SPOOL_DISC: there is no such variable; did you mean VIPSRV_SPOOL_DISK?",
        f"vipsrv: {config}:1: queue: Input should be greater than or equal to 0, not -1",
    ]


def test_the_file_of_the_current_folder_is_read_unless_told_otherwise(config: Path) -> None:
    here = config.parent
    assert vipsrv("config", folder=here).stdout.startswith("file: vipsrv.toml\n")
    assert vipsrv("config", "--no-config", folder=here).stdout.startswith("file: none\n")
    both = vipsrv("config", "--no-config", "--config", str(config))
    assert (both.returncode, both.stderr) == (2, "vipsrv: --config and --no-config exclude each other\n")


def test_a_file_that_is_named_has_to_exist(tmp_path: Path) -> None:
    ended = vipsrv("config", VIPSRV_CONFIG=str(tmp_path / "none.toml"))
    assert ended.returncode == 2
    assert (
        ended.stderr == f"vipsrv: {tmp_path}/none.toml: the file cannot be read: No such file or directory\n"
    )


def test_formats_and_doctor_read_the_file(config: Path) -> None:
    config.write_text('formats = ["png"]\nspool_dir = "/nowhere"\n')
    listed = vipsrv("formats", "--config", str(config)).stdout
    assert "pngload" in listed
    assert "jpegload" not in listed
    ended = vipsrv("doctor", "--config", str(config))
    assert ended.returncode == 1
    assert "/nowhere" in ended.stdout


def test_ping_asks_at_the_address_of_the_file(server: RunningServer, config: Path) -> None:
    for text in (
        f"port = {server.port}",
        f'port = 1\nlisten = "0.0.0.0:{server.port}"',
        f'listen = ["127.0.0.1:{server.port}", "unix:/nowhere"]\nqueue = -1',
    ):
        config.write_text(text)
        ended = vipsrv("ping", "--config", str(config))
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.startswith(f"127.0.0.1:{server.port} answered in ")


def test_a_health_check_goes_on_while_someone_edits_the_file(server: RunningServer, config: Path) -> None:
    config.write_text(f'\nlisten = ["127.0.0.1:{server.port}"]\nnonsense = 1')
    ended = vipsrv("ping", "--config", str(config))
    assert ended.returncode == 0
    assert ended.stderr == f"vipsrv: {config}:3: nonsense: there is no such setting\n"


def test_ping_follows_the_precedence_of_the_sources(server: RunningServer, config: Path) -> None:
    config.write_text("port = 1")
    assert vipsrv("ping", "--config", str(config), VIPSRV_PORT=str(server.port)).returncode == 0
    assert vipsrv("ping", "--config", str(config), "--port", str(server.port)).returncode == 0
