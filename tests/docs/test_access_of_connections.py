"""The examples of the page "Access" that concern connections do what the page says."""

import os
import re
import shlex
import struct
import subprocess
import sys
from pathlib import Path

from tests.conftest import StartServer
from tests.server.identity.records import add
from tests.support import bare_client
from tests.support.images import jpeg
from vipsrv.server.connections.login import LOGIN_SECONDS

PAGE = Path(__file__).parents[2] / "docs" / "operations" / "access.md"
SECTIONS = {
    part.partition("\n")[0]: part for part in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
}


def words(section: str) -> list[str]:
    """The words of the only command in a section."""
    (command,) = re.findall(r"^```sh\n(.*?)^```$", SECTIONS[section], re.MULTILINE | re.DOTALL)
    return shlex.split(command)


def test_the_server_that_excepts_version_1_clients(start_server: StartServer, tmp_path: Path) -> None:
    vipsrv, serve, *arguments = words("What a connection may do")
    assert (vipsrv, serve) == ("vipsrv", "serve")
    add(tmp_path / "tokens.toml")
    arguments[arguments.index("tokens.toml")] = str(tmp_path / "tokens.toml")
    where = ["--listen", f"unix:{tmp_path}/socket", "--listen", "127.0.0.1:0"]
    server = start_server("--workers", "1", *arguments, *where)
    with bare_client.connect(server.port) as sock:  # its address is not among those that are excepted
        sock.sendall(struct.pack("!III", 5, 80, 60))
        assert bare_client.read_answer(sock).error["status"] == 401
    assert f"has {LOGIN_SECONDS:g} seconds" in SECTIONS["What a connection may do"]


def test_the_client_with_a_token_file(start_server: StartServer, tmp_path: Path) -> None:
    token = add(tmp_path / "tokens.toml")
    server = start_server("--workers", "1", "--tokens", str(tmp_path / "tokens.toml"))
    (tmp_path / "photo.jpg").write_bytes(jpeg())
    (tmp_path / "shop.token").write_text(f"{token.text}\n")
    program, *arguments = words("Clients")
    assert program == "vipsrv-client"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VIPSRV_")}

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from vipsrv.cli.client import main; main()", *arguments],
            cwd=tmp_path,
            env={**clean, "PYTHONPATH": str(PAGE.parents[2]), "VIPSRV_PORT": str(server.port)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert run().returncode == 0
    assert (tmp_path / "processed_photo.jpg").is_file()
    (tmp_path / "shop.token").write_text(token.text[:-1])
    assert "the token is unknown or wrong" in run().stderr
