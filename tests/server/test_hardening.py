"""What hardening does to a process, seen from processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import StartServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can do this")

_HARDEN = """
import os, sys
from vipsrv.server.hardening import harden
import ctypes
before = open("/proc/self/environ", "rb").read()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE of linux/prctl.h
harden()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
print(*sorted(set(os.environ) & {"TOKEN", "VIPSRV_TOKEN", "VIPSRV_PORT", "PATH"}))
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # so that /proc can be read again by any user
after = open("/proc/self/environ", "rb").read()
print(before.count(b"very secret"), after.count(b"very secret"), b"VIPSRV_PORT=1" in after)
"""


def test_a_hardened_process_is_closed_and_has_forgotten_what_nothing_reads() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _HARDEN],
        env={**os.environ, "TOKEN": "very secret", "VIPSRV_TOKEN": "very secret", "VIPSRV_PORT": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ended.stdout.splitlines() == ["1", "0", "PATH VIPSRV_PORT", "2 0 True"]


def test_the_variables_of_exports_are_kept_where_something_reads_them() -> None:
    script = (
        "import os\nfrom vipsrv.server.hardening import harden\n"
        "harden(exports={})\nprint('OTEL_X' in os.environ)"
    )
    kept = [
        subprocess.run(
            [sys.executable, "-c", script.format(exports)],
            env={**os.environ, "OTEL_X": "1"},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout.strip()
        for exports in (True, False)
    ]
    assert kept == ["True", "False"]


def test_a_server_is_hardened(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "very secret")
    server = start_server("--workers", "1")
    environment = Path(f"/proc/{server.pid}/environ")
    if os.geteuid() == 0:
        assert b"TOKEN=" in environment.read_bytes()
        assert b"very secret" not in environment.read_bytes()
    else:
        with pytest.raises(PermissionError):
            environment.read_bytes()
