"""The examples at the top of the page "TLS" do what the page says."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.conftest import StartServer
from tests.support.images import jpeg

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations" / "tls.md").read_text()
FENCES = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
LISTENER = "tls://127.0.0.1:0"


def run(folder: Path, *command: str) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VIPSRV_")}
    subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(ROOT)},
        timeout=60,
        check=True,
    )


def test_the_examples(start_server: StartServer, tmp_path: Path) -> None:
    """Only the names of the host and the port are others, and the server's files have whole paths."""
    (_, on_the_server), (_, in_the_shell), (_, in_python) = FENCES[:3]
    _, make_files, serve = on_the_server.splitlines()
    program, *arguments = shlex.split(make_files.replace("images.example", "localhost"))
    assert program == "vipsrv"
    run(tmp_path, "-m", "vipsrv", *arguments)
    assert sorted(path.name for path in (tmp_path / "tls").iterdir()) == [
        *("ca-key.pem", "ca.pem", "cert.pem", "key.pem")
    ]

    program, command, *arguments = shlex.split(serve.replace(" tls/", f" {tmp_path}/tls/"))
    assert (program, command) == ("vipsrv", "serve")
    arguments[arguments.index("--listen") + 1] = LISTENER
    server = start_server("--workers", "1", *arguments)

    client = tmp_path / "client"
    client.mkdir()
    (tmp_path / "tls" / "ca.pem").rename(client / "ca.pem")
    (client / "photo.jpg").write_bytes(jpeg())
    program, *arguments = shlex.split(in_the_shell.replace("images.example", "localhost"))
    assert program == "vipsrv-client"
    main = "from vipsrv.cli.client import main; main()"
    run(client, "-c", main, *arguments, "--port", str(server.port))
    assert (client / "processed_photo.jpg").is_file()

    run(client, "-c", in_python.replace('"images.example"', f'"localhost", {server.port}'))
    assert (client / "small.jpg").is_file()
