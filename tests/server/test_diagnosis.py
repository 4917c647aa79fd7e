"""What ``vipsrv doctor`` finds, with the machine's limits played by the test."""

import os
import resource
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Lab
from vipsrv.cli.lab_certificates import Validity
from vipsrv.server import diagnosis
from vipsrv.server.cgroups import Cgroups
from vipsrv.server.diagnosis import Finding, Rating, confinement, diagnose
from vipsrv.server.memory_limit import memory_needed
from vipsrv.server.settings import ServerSettings
from vipsrv.server.spool_folder import filesystem_kind
from vipsrv.workers.channel import Ready

READY = Ready(
    pid=1, readers={"jpeg": "libvips 8.18"}, writers=("png",), layers=("own-uid", "seccomp", "landlock")
)


@pytest.fixture(autouse=True)
def no_real_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "formats_of", lambda _settings: READY)


def find(subject: str, folder: Path, files: dict[str, str] | None = None, **settings: Any) -> Finding:
    """The finding about ``subject`` for a process whose cgroup has these files."""
    for name, content in (files or {}).items():
        (folder / name).write_text(content)
    (folder / "own").write_text("0::/\n")
    chosen = ServerSettings(**{"spool_dir": folder, "workers": 1, **settings})
    findings = diagnose(chosen, Cgroups(folder, folder / "own"))
    (found,) = (one for one in findings if one.subject == subject)
    assert bool(found.advice) is (found.rating is not Rating.OK)
    return found


def test_formats_and_layers_are_those_of_a_worker(tmp_path: Path) -> None:
    assert find("reads", tmp_path).detail == "jpeg (libvips 8.18)"
    assert find("writes", tmp_path).detail == "png"
    assert find("confinement", tmp_path) == Finding("confinement", Rating.OK, "own-uid, seccomp, landlock")


def test_workers_of_a_server_that_changes_its_user_have_none_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = find("confinement", tmp_path, user="nobody")
    assert found == Finding("confinement", Rating.OK, "seccomp, landlock")


def test_root_without_a_user_for_its_workers_is_a_warning() -> None:
    found = confinement(("seccomp", "landlock-7"), root=True)
    assert (found.rating, "own-uid missing" in found.detail) == (Rating.WARNING, True)


@pytest.mark.parametrize(("root", "said"), [(True, "run as root"), (False, "landlock, seccomp missing")])
def test_no_confinement_is_a_warning(*, root: bool, said: str) -> None:
    found = confinement((), root=root)
    assert found.rating is Rating.WARNING
    assert said in found.detail


@pytest.mark.parametrize(
    ("subject", "files", "enough"),
    [
        ("cpu", {"cpu.max": "100000 100000"}, {"cpu.max": "max 100000"}),
        ("memory", {"memory.max": "1000000"}, {"memory.max": "max"}),
        ("tasks", {"pids.max": "11"}, {"pids.max": "max"}),
    ],
)
def test_a_cgroup_that_allows_too_little(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    subject: str,
    files: dict[str, str],
    enough: dict[str, str],
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    monkeypatch.setattr(os, "sysconf", lambda _name: 1 << 24)
    assert find(subject, tmp_path, files, workers=2).rating is Rating.WARNING
    assert find(subject, tmp_path, enough, workers=2).rating is Rating.OK


def test_descriptors_are_held_against_the_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    assert find("descriptors", tmp_path, connections=2000).rating is Rating.WARNING
    assert find("descriptors", tmp_path, connections=150).rating is Rating.OK
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    assert find("descriptors", tmp_path, connections=2000).rating is Rating.OK
    assert find("descriptors", tmp_path, connections=1 << 20).rating is Rating.WARNING  # not raised so far


def test_the_spool_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find("spool", tmp_path, spool_dir=tmp_path / "none").rating is Rating.FAULT
    for kind, rating in (("ext4", Rating.OK), ("tmpfs", Rating.WARNING), ("nfs4", Rating.WARNING)):
        monkeypatch.setattr(diagnosis, "filesystem_kind", lambda _folder, kind=kind: kind)
        assert find("spool", tmp_path, spool_disk=1).rating is rating
    monkeypatch.setattr(diagnosis, "filesystem_kind", lambda _folder: "ext4")
    assert find("spool", tmp_path, spool_disk=1 << 60).rating is Rating.WARNING


def test_the_token_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    missing = find("tokens", tmp_path, tokens=path)
    assert (missing.rating, "there is no such token file" in missing.detail) == (Rating.FAULT, True)
    path.touch(0o600)
    assert find("tokens", tmp_path, tokens=path) == Finding("tokens", Rating.OK, f"{path} has 0 tokens")
    path.chmod(0o644)
    assert find("tokens", tmp_path, tokens=path).rating is Rating.WARNING


def test_the_files_of_tls(tmp_path: Path) -> None:
    listen = ("tls://127.0.0.1:0",)
    none = find("TLS", tmp_path, listen=listen)
    assert (none.rating, "needs a certificate" in none.detail) == (Rating.FAULT, True)
    certificate, key = Lab(tmp_path / "lab").server(hosts=("images.example",), validity=Validity(90))
    found = find("TLS", tmp_path, listen=listen, tls_cert=certificate, tls_key=key)
    assert (found.rating, "of images.example, valid until" in found.detail) == (Rating.OK, True)
    key.chmod(0o644)
    open_to_all = find("TLS", tmp_path, listen=listen, tls_cert=certificate, tls_key=key)
    assert (open_to_all.rating, "every user" in open_to_all.detail) == (Rating.WARNING, True)


def test_the_kind_of_a_file_system_is_that_of_the_innermost_mount(tmp_path: Path) -> None:
    inner = tmp_path / "a b" / "c"
    inner.mkdir(parents=True)
    mounts = tmp_path / "mounts"
    escaped = str(inner.parent).replace(" ", "\\040")
    mounts.write_text(f"disk / ext4 rw 0 0\nnone {escaped} tmpfs rw 0 0\ndisk /other xfs rw 0 0\n")
    assert filesystem_kind(inner, mounts) == "tmpfs"
    assert filesystem_kind(tmp_path, mounts) == "ext4"
    assert filesystem_kind(inner, tmp_path / "none") is None


def test_the_memory_is_what_the_documentation_adds_up() -> None:
    mib = 1 << 20
    settings = ServerSettings(
        workers=4, spool_memory=256 * mib, decode_memory=2048 * mib, job_memory=512 * mib
    )
    assert memory_needed(settings) == (48 + 256 + 4 * 176 + 2 * 512) * mib


@pytest.mark.skipif(sys.platform != "linux", reason="several gateways need Linux")
def test_several_gateways_are_named_and_counted(tmp_path: Path) -> None:
    assert find("gateways", tmp_path, gateways=1).detail == "1 gateway"
    assert find("gateways", tmp_path, gateways=2, workers=2).detail == "2 gateways under a supervisor"
    found = find("gateways", tmp_path, gateways=3, workers=2)
    assert (found.rating, found.detail) == (Rating.FAULT, "3 gateways under a supervisor, and 2 workers")
    assert find("tasks", tmp_path, gateways=2, workers=2).detail.startswith("64 processes and threads")
    assert (
        "for 2048 connections of each gateway" in find("descriptors", tmp_path, gateways=2, workers=2).detail
    )


@pytest.mark.skipif(sys.platform != "linux", reason="several gateways need Linux")
def test_several_gateways_may_run_a_heavy_job_each() -> None:
    mib = 1 << 20
    several = ServerSettings(
        gateways=2, workers=4, spool_memory="256MiB", decode_memory="512MiB", job_memory="512MiB"
    )
    assert memory_needed(several) == (3 * 48 + 256 + 4 * 176 + 2 * 512) * mib


# The operator's listener.


def test_the_operators_listener(tmp_path: Path) -> None:
    assert find("operator", tmp_path, ops_listen="off").rating is Rating.OK
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        free = f"127.0.0.1:{closed.getsockname()[1]}"
        found = find("operator", tmp_path, ops_listen=free)
    assert (found.rating, found.detail) == (Rating.OK, f"metrics, health and the live page at ops://{free}")
    assert find("operator", tmp_path, ops_listen=f"unix:{tmp_path}/ops").rating is Rating.OK


def test_an_operators_listener_that_others_can_reach(tmp_path: Path) -> None:
    found = find("operator", tmp_path, ops_listen="0.0.0.0:1")
    assert (found.rating, "other machines can reach" in found.detail) == (Rating.WARNING, True)
    assert find("operator", tmp_path, ops_listen="0.0.0.0:1", insecure=True).rating is Rating.OK


@pytest.mark.parametrize("listen", ["unix:/nowhere/ops", "a..b:9464"])
def test_an_impossible_address_of_the_operator(tmp_path: Path, listen: str) -> None:
    assert find("operator", tmp_path, ops_listen=listen).rating is Rating.FAULT


@pytest.mark.parametrize(
    ("reply", "rating"), [(b'{"alive": true}', Rating.OK), (b"220 mail", Rating.FAULT), (b"", Rating.FAULT)]
)
def test_who_listens_at_the_address_of_the_operator(tmp_path: Path, reply: bytes, rating: Rating) -> None:
    def answer() -> None:
        connection, _ = other.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as other:
        thread = threading.Thread(target=answer)
        thread.start()
        found = find("operator", tmp_path, ops_listen=f"127.0.0.1:{other.getsockname()[1]}")
        thread.join()
    assert found.rating is rating, found
