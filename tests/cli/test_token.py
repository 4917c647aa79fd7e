"""``vipsrv token`` as an operator types it."""

import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from vipsrv.cli.server import app
from vipsrv.server.identity import Identities, IdentityLimits
from vipsrv.server.identity.token_file import read_token_file

SECONDS = 60
VIPSRV = [sys.executable, "-m", "vipsrv"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


def environment(**settings: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VIPSRV_")}
    return {**clean, **settings}


def token(*arguments: str | Path, tokens: Path | None = None) -> Result:
    """Run ``vipsrv token``; ``tokens`` is the token file, named by the environment."""
    variables: dict[str, str | None] = {name: None for name in os.environ if name.startswith("VIPSRV_")}
    variables["VIPSRV_TOKENS"] = str(tokens) if tokens else None
    return CliRunner().invoke(app, ["token", *map(str, arguments)], env=variables)


def test_a_token_is_printed_once_and_alone_so_that_a_shell_can_take_it(path: Path) -> None:
    script = f'TOKEN=$({sys.executable} -m vipsrv token new shop --tokens "$0") && printf %s "$TOKEN"'
    ended = subprocess.run(
        ["sh", "-c", script, path],  # noqa: S607 - the shell of the system
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=environment(),
    )
    assert ended.returncode == 0, ended.stderr
    identity = Identities(path).identify(ended.stdout, time.time())
    assert identity.name == "shop"
    secret = ended.stdout.rpartition(identity.token_id)[2]
    assert secret[1:] not in path.read_text()
    assert secret[1:] not in ended.stderr
    assert ended.stderr.startswith(
        f"vipsrv: added the token {identity.token_id} of shop to {path}, good for ever"
    )
    assert "vipsrv reload" in ended.stderr


def test_every_limit_has_a_flag(path: Path) -> None:
    ended = token(
        *("new", "shop", "--expires", "90d", "--requests-per-second", "0.5", "--bytes-per-second", "10MB"),
        *("--in-flight", "4", "--max-pixels", "40000000", "--formats", "jpg, png", "--priority", "2"),
        tokens=path,
    )
    assert ended.exit_code == 0, ended.stderr
    (record,) = read_token_file(path).records
    assert record.limits == IdentityLimits(
        requests_per_second=0.5,
        bytes_per_second=10_000_000,
        in_flight=4,
        max_pixels=40_000_000,
        formats=frozenset({"jpeg", "png"}),
        priority=2,
    )
    assert record.expires is not None
    assert record.expires - record.created == timedelta(days=90)
    assert "until " in ended.stderr


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("30s", timedelta(seconds=30)),
        ("5m", timedelta(minutes=5)),
        ("12h", timedelta(hours=12)),
        ("2w", timedelta(days=14)),
        ("1y", timedelta(days=365)),
    ],
)
def test_durations(path: Path, text: str, length: timedelta) -> None:
    assert token("new", "shop", "--expires", text, tokens=path).exit_code == 0
    (record,) = read_token_file(path).records
    assert record.expires is not None
    assert record.expires - record.created == length


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a b"], "NAME: 'a b' is not a valid name"),
        (["shop", "--expires", "90"], "--expires: '90' is not a time, for example 90d"),
        (["shop", "--expires", "0d"], "--expires: '0d' is not a time"),
        (["shop", "--expires", "-1d"], "--expires: '-1d' is not a time"),
        (["shop", "--expires", "999999999y"], "--expires: 999999999y is too long"),
        (["shop", "--requests-per-second", "0"], "--requests-per-second: must be from"),
        (["shop", "--requests-per-second", "nan"], "--requests-per-second: must be a number"),
        (["shop", "--bytes-per-second", "much"], "--bytes-per-second: 'much' is not a number of bytes"),
        (["shop", "--in-flight", "0"], "--in-flight: must be from 1"),
        (["shop", "--max-pixels", "-1"], "--max-pixels: must be from 1"),
        (["shop", "--formats", "jpeg,jepg"], "--formats: 'jepg' is unknown; known are"),
        (["shop", "--formats", ""], "--formats: '' is unknown"),
        (["shop", "--priority", "1000"], "--priority: must be from 0.01 to 100"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_flag(
    path: Path, arguments: list[str], message: str
) -> None:
    ended = token("new", *arguments, tokens=path)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"vipsrv: {message}")
    assert len(ended.stderr.splitlines()) == 1
    assert not path.exists()


@pytest.mark.parametrize("arguments", [["new", "shop"], ["list"], ["revoke", "shop"]])
def test_without_a_token_file(arguments: list[str]) -> None:
    ended = token(*arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr == (
        "vipsrv: which token file? Name it by --tokens FILE, or by the server's setting 'tokens'\n"
    )


def test_the_file_is_that_of_the_server_s_settings(path: Path, tmp_path: Path) -> None:
    config = tmp_path / "vipsrv.toml"
    config.write_text(f'tokens = "{path}"\n')
    assert token("new", "shop", "--config", config).exit_code == 0
    assert token("list", "--config", config).stdout.splitlines()[1].split()[1] == "shop"
    assert token("revoke", "shop", "--config", config).exit_code == 0
    config.write_text('tokens = 5\nport = "x"\n')
    ended = token("list", "--config", config)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert [line.startswith(f"vipsrv: {config}:") for line in ended.stderr.splitlines()] == [True, True]


def test_the_flag_wins_over_the_environment(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    assert token("new", "shop", "--tokens", other, tokens=path).exit_code == 0
    assert other.exists()
    assert not path.exists()


def test_a_second_token_of_a_name_has_the_limits_of_the_first(path: Path) -> None:
    assert token("new", "shop", "--in-flight", "4", tokens=path).exit_code == 0
    assert token("new", "shop", tokens=path).exit_code == 0
    assert token("new", "shop", "--in-flight", "4", tokens=path).exit_code == 0
    ended = token("new", "shop", "--in-flight", "5", tokens=path)
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert "shop has a token with other limits" in ended.stderr
    assert [one.limits.in_flight for one in read_token_file(path).records] == [4, 4, 4]


def test_tokens_are_listed_without_their_secrets(path: Path) -> None:
    first = token("new", "shop", "--expires", "1s", "--formats", "png,jpeg", tokens=path).stdout
    token("new", "archive", "--requests-per-second", "20", tokens=path)
    token("revoke", "archive", tokens=path)
    ended = token("list", tokens=path)
    assert ended.exit_code == 0
    header, *rows = ended.stdout.splitlines()
    assert header.split() == ["ID", "NAME", "STATE", "CREATED", "EXPIRES", "LIMITS"]
    assert [row.split()[1] for row in rows] == ["shop", "archive"]
    assert rows[0].endswith("formats jpeg+png")
    assert rows[1].endswith("requests_per_second 20")
    assert " revoked " in rows[1]
    listed = json.loads(token("list", "--json", tokens=path).stdout)["tokens"]
    assert [one["name"] for one in listed] == ["shop", "archive"]
    assert set(listed[0]) == {"id", "name", "state", "created", "expires", "revoked", "limits"}
    assert listed[1]["state"] == "revoked"
    assert listed[0]["limits"] == {"formats": ["jpeg", "png"]}
    everything = ended.stdout + json.dumps(listed)
    assert first.strip().split("_", 2)[2] not in everything
    assert "sha256" not in everything


def test_a_token_is_revoked_by_its_id_or_its_name(path: Path) -> None:
    ids = [token("new", "shop", tokens=path).stdout.split("_")[1] for _ in range(3)]
    ended = token("revoke", ids[1], tokens=path)
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert ended.stderr.startswith(f"vipsrv: revoked the token {ids[1]} of shop\n")
    ended = token("revoke", "shop", tokens=path)
    assert [line.split()[4] for line in ended.stderr.splitlines()[:2]] == [ids[0], ids[2]]
    assert token("revoke", "shop", tokens=path).stderr == "vipsrv: shop was revoked before\n"
    ended = token("revoke", "shoq", tokens=path)
    assert ended.exit_code == 1
    assert ended.stderr == f"vipsrv: {path}: no token has the id or the name 'shoq'\n"


@pytest.mark.parametrize("arguments", [["new", "shop"], ["list"], ["revoke", "shop"]])
def test_an_invalid_file_is_one_line_with_its_place(path: Path, arguments: list[str]) -> None:
    path.write_text("# tokens\n[abcdefgh]\n")
    ended = token(*arguments, tokens=path)
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr == f"vipsrv: {path}:2: [abcdefgh]: name: is missing\n"
    assert path.read_text() == "# tokens\n[abcdefgh]\n"


def test_a_missing_file_is_told_how_to_make_it(path: Path) -> None:
    ended = token("list", tokens=path)
    assert ended.exit_code == 1
    assert f"'vipsrv token new NAME --tokens {path}' creates it" in ended.stderr


def test_a_file_that_others_may_read_is_mentioned(path: Path) -> None:
    token("new", "shop", tokens=path)
    path.chmod(0o644)
    ended = token("list", tokens=path)
    assert ended.exit_code == 0
    assert "others may read or change the token file (mode 0644)" in ended.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
def test_a_token_that_could_not_be_printed_is_named(path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*VIPSRV, "token", "new", "shop", "--tokens", path],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=SECONDS,
            check=False,
            env=environment(),
        )
    (record,) = read_token_file(path).records
    assert ended.returncode == 1
    assert ended.stderr == (
        f"vipsrv: standard output: No space left on device; nobody has this token: revoke {record.id}\n"
    )


def test_commands_at_the_same_time_lose_no_token(path: Path) -> None:
    names = [f"name{number}" for number in range(4)]
    processes = [
        subprocess.Popen(
            [*VIPSRV, "token", "new", name, "--tokens", path],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(),
        )
        for name in names
    ]
    printed = [process.communicate(timeout=SECONDS)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(names)
    identities = Identities(path)
    assert [identities.identify(text, time.time()).name for text in printed] == names
