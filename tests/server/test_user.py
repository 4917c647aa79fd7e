"""The user that a server changes to."""

import errno
import os
import pwd
import re
from pathlib import Path

import pytest

from tests.support.running_server import RunningServer, worker_pids
from vipsrv.client import Client
from vipsrv.errors import StartFailed
from vipsrv.server.user import change_user

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user")


def uids(pid: int) -> set[str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return set(next(line for line in lines if line.startswith("Uid:")).split()[1:])


def test_an_unknown_user_is_named() -> None:
    with pytest.raises(StartFailed, match="--user: this system has no user nobody-by-this-name"):
        change_user("nobody-by-this-name")


def test_the_present_user_is_no_change() -> None:
    change_user(str(os.geteuid()))


@pytest.mark.parametrize("call", ["initgroups", "setgid"])
@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL])  # no capability; no such number here
def test_a_change_that_is_refused_is_told(monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "initgroups", lambda *_: None)
    monkeypatch.setattr(os, call, refuse)
    other = next(entry.pw_name for entry in pwd.getpwall() if entry.pw_uid != os.geteuid())
    said = f"--user: cannot change to {other}: {os.strerror(number)}; it needs root with SETUID and SETGID"
    with pytest.raises(StartFailed, match=re.escape(said)):
        change_user(other)


@needs_root
def test_no_id_of_root_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "setresuid")  # as on macOS
    monkeypatch.delattr(os, "setresgid")
    other = next(entry for entry in pwd.getpwall() if entry.pw_uid)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        change_user(other.pw_name)
        os.write(writing, f"{os.getresuid()} {os.getresgid()}".encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        assert said.read() == f"{(other.pw_uid,) * 3} {(other.pw_gid,) * 3}"
    os.waitpid(pid, 0)


@needs_root
def test_as_root_each_worker_has_a_user_of_its_own() -> None:
    with RunningServer("--workers", "2") as server, Client(server.host, server.port) as client:
        client.ping()
        assert uids(server.pid) == {"0"}
        workers = [uids(pid) for pid in worker_pids(server.pid)]
        assert all(len(one) == 1 and "0" not in one for one in workers)
        assert workers[0] != workers[1]


@needs_root
def test_the_number_of_the_workers_user_can_be_chosen() -> None:
    with RunningServer("--workers", "1", "--worker-uid", "4242") as server:
        assert [uids(pid) for pid in worker_pids(server.pid)] == [{"4242"}]
