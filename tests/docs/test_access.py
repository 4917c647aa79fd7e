"""The examples of the page "Access" do what the page says."""

import os
import re
import shlex
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.images import jpeg
from tests.support.running_server import RunningServer
from vipsrv.server.identity import IdentityLimits, penalties, usage
from vipsrv.server.identity.identity import MOST_PRIORITY
from vipsrv.server.identity.token_file import read_token_file
from vipsrv.server.identity.token_records import TokenRecord, parse_tokens

PAGE = Path(__file__).parents[2] / "docs" / "operations" / "access.md"
TEXT = PAGE.read_text()
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]}
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(section: str) -> list[tuple[str, str]]:
    """The language and the text of each code block of a section."""
    return _BLOCK.findall(SECTIONS[section])


def masked(text: str) -> str:
    """``text`` with ids and times replaced, which differ in each run."""
    text = re.sub(r"\b[a-z2-7]{16}\b", "<id>", text)
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "<time>", text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a command ``vipsrv`` in ``bin``, which a new user would have installed."""
    command = tmp_path / "bin" / "vipsrv"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m vipsrv "$@"\n')
    command.chmod(0o755)
    return tmp_path


def run(script: str, folder: Path, *, commands: Path | None = None) -> str:
    """Run an example in ``folder`` with the programs in ``commands``, and return what it prints."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VIPSRV_")}
    done = subprocess.run(
        ["sh", "-ec", script],  # noqa: S607 - the shell of the system
        cwd=folder,
        env={
            **clean,
            "PATH": f"{commands or folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(PAGE.parents[2]),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def run_all(section: str, folder: Path) -> int:
    """Run the examples of a section one after another; the text after one is what it prints."""
    found = [(kind, text) for kind, text in blocks(section) if kind in {"sh", "text"}]
    examples = 0
    for number, (kind, text) in enumerate(found):
        if kind == "text":
            continue
        examples += 1
        if text.startswith("vipsrv serve "):
            arguments = [folder / word if word.endswith(".toml") else word for word in shlex.split(text)[2:]]
            RunningServer("--workers", "1", *map(str, arguments)).stop()
            continue
        printed = run(text, folder)
        follows = found[number + 1] if number + 1 < len(found) else ("", "")
        if follows[0] == "text":
            assert masked(printed) == masked(follows[1])
    return examples


def test_from_nothing_to_a_client_on_another_address(folder: Path) -> None:
    """The lines of the page as they are, but for the address, the installation and ``scp``."""
    on_the_server, on_the_client = (text for _, text in blocks("From nothing to a client on another machine"))
    assert len((on_the_server + on_the_client).splitlines()) <= 10
    server_folder, client_folder = folder / "server", folder / "client"
    server_folder.mkdir()
    client_folder.mkdir()
    (client_folder / "photo.jpg").write_bytes(jpeg())
    for name, script in (
        (
            "vipsrv-client",
            f"exec {shlex.quote(sys.executable)} -c 'from vipsrv.cli.client import main; main()' \"$@\"",
        ),
        ("scp", f'for source in "$1" "$2"; do cp "{server_folder}/${{source#127.0.0.2:}}" "$3"; done'),
    ):
        command = folder / "bin" / name
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)

    def lines(text: str, port: int) -> list[str]:
        text = text.replace("192.0.2.10", "127.0.0.2").replace(":65432", f":{port}")
        return [
            line
            for line in text.splitlines()
            if not line.startswith(("pip install ", "python3 -m pip install "))
        ]

    *commands, serve = lines(on_the_server, 0)
    run("\n".join(commands), server_folder, commands=folder / "bin")
    names = {"tls/cert.pem", "tls/key.pem", "tokens.toml"}
    words = [str(server_folder / word) if word in names else word for word in shlex.split(serve)]
    assert words[:2] == ["vipsrv", "serve"]
    with RunningServer("--workers", "1", *words[2:]) as server:
        (listener,) = server.listeners
        assert listener.startswith("tls://127.0.0.2:")
        run("\n".join(lines(on_the_client, server.port)), client_folder, commands=folder / "bin")
        assert "OPEN TO EVERYONE" not in server.log
    assert (client_folder / "processed_photo.jpg").is_file()
    readable = {
        path.name for path in server_folder.rglob("*") if path.is_file() and path.stat().st_mode & 0o077
    }
    assert readable <= {"ca.pem", "cert.pem"}


def test_the_examples_of_tokens(folder: Path) -> None:
    assert run_all("Tokens", folder) == 4
    (record,) = read_token_file(folder / "tokens.toml").records
    assert record.name == "shop"
    assert record.revoked is not None
    assert record.expires is not None
    assert record.expires - record.created == timedelta(days=90)
    token = folder / "shop.token"
    assert token.read_text().startswith(f"vips_{record.id}_")
    assert token.stat().st_mode & 0o077 == 0


def test_the_examples_of_limits(folder: Path) -> None:
    assert run_all("Limits", folder) == 1
    (record,) = read_token_file(folder / "tokens.toml").records
    assert record.limits == IdentityLimits(
        requests_per_second=20,
        bytes_per_second=10_000_000,
        in_flight=8,
        max_pixels=40_000_000,
        formats=frozenset({"jpeg", "png"}),
        priority=0.5,
    )


def test_the_example_of_a_token_file_is_one() -> None:
    (text,) = [text for kind, text in blocks("Tokens") if kind == "toml"]
    (record,) = parse_tokens(text.encode(), PAGE)
    assert isinstance(record, TokenRecord)
    assert record.limits.in_flight == 8


def test_the_table_has_every_limit() -> None:
    rows = re.findall(r"^\| `--([a-z-]+)`<br>`([a-z_]+)` \|", SECTIONS["Limits"], re.MULTILINE)
    assert [key for _, key in rows] == list(IdentityLimits.__dataclass_fields__)
    assert [flag.replace("-", "_") for flag, _ in rows] == [key for _, key in rows]


def test_the_numbers_are_those_of_the_code() -> None:
    limits, failures = (" ".join(SECTIONS[name].split()) for name in ("Limits", "Failed logins"))
    assert usage.BURST_SECONDS == 1
    assert f"weight, {1 / MOST_PRIORITY:g} to {MOST_PRIORITY:g}" in limits
    assert f"adds {penalties.FAILURE_SECONDS:g} seconds" in failures
    assert f"more than {penalties.LEAST_SECONDS:g} seconds" in failures
    assert f"up to {penalties.MOST_SECONDS / 60:g} minutes" in failures
    assert f"{penalties.MOST_ADDRESSES:,} addresses" in failures
