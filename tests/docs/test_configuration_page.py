"""The page "Configuration": its commands run in order and print what the page says."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.bare_client import SECONDS
from tests.support.running_server import wait_until
from tests.support.unused_port import unused_port

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operations" / "configuration.md"

_BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def run(command: str, folder: Path) -> str:
    """What a block of commands prints, errors included."""
    done = subprocess.run(
        ["/bin/bash", "-c", f"set -eo pipefail\n{command}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
        cwd=folder,
        env=environment(folder),
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def environment(folder: Path) -> dict[str, str]:
    """Without settings, and with a command ``vipsrv`` that is this one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VIPSRV_")}
    return {**kept, "PATH": f"{folder / 'bin'}:{kept['PATH']}", "PYTHONPATH": str(ROOT)}


def words(text: str) -> list[list[str]]:
    """The words of each line: how wide a column is depends on all settings."""
    return [line.split() for line in text.splitlines()]


def test_the_page(tmp_path: Path) -> None:
    command = tmp_path / "bin" / "vipsrv"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m vipsrv "$@"\n')
    command.chmod(0o755)
    text = PAGE.read_text().replace("65432", str(unused_port()))
    server: subprocess.Popen[bytes] | None = None
    printed, compared = "", 0
    log = tmp_path / "log"
    try:
        for language, title, block in _BLOCK.findall(text):
            if title:
                (tmp_path / title).write_text(block)
            elif block == "vipsrv serve\n":
                with log.open("wb") as output:
                    server = subprocess.Popen(
                        [str(command), "serve"], cwd=tmp_path, env=environment(tmp_path), stdout=output
                    )
                wait_until(lambda: b"listening" in log.read_bytes(), "server of the page")
            elif language == "sh":
                printed = run(block, tmp_path)
            else:
                assert language == "text"
                assert words(printed) == words(block)
                compared += 1
    finally:
        if server is not None:
            server.send_signal(signal.SIGTERM)
            assert server.wait(SECONDS) == 0
    assert server is not None
    assert compared >= 6
