"""Peers are found, or named as missing with what to set, and are asked over HTTP."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.baselines import PEERS, Baseline, Request
from bench.baselines.peers import locate
from bench.baselines.peers.file_reader import FileReader
from bench.baselines.peers.http_client import HttpConnection, request_bytes
from bench.baselines.peers.imaginary import Imaginary
from bench.baselines.peers.imgproxy import Imgproxy
from bench.baselines.peers.ipx import Ipx
from bench.baselines.peers.sharp import Sharp
from bench.baselines.served import Served
from bench.images import CACHE_VARIABLE
from bench.measuring.process_group import ProcessGroup
from tests.support.image_comparison import open_exact
from tests.support.images import photo


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable, no folder of installed peers, and no path."""
    for name in {kind.name for kind in PEERS}:
        monkeypatch.delenv(locate.variable(name), raising=False)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def made(path: Path) -> Path:
    """A program that can be run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("kind", PEERS, ids=lambda kind: kind.name)
def test_a_missing_peer_is_named_in_one_line(kind: type[Baseline]) -> None:
    told = kind([0]).missing()
    assert told is not None
    assert "\n" not in told
    assert "on the path" in told


@pytest.mark.parametrize("kind", [kind for kind in PEERS if "sharp" not in kind.name and kind is not Ipx])
def test_a_missing_program_says_what_to_set(kind: type[Baseline]) -> None:
    told = kind([0]).missing()
    assert told is not None
    assert f"set VIPSRV_PEER_{kind.name.upper()} to the program" in told


@pytest.mark.parametrize("kind", [Sharp, Ipx])
def test_a_missing_package_says_what_to_set(kind: type[Baseline], tmp_path: Path) -> None:
    made(tmp_path / "bin" / "node")
    told = kind([0]).missing()
    assert told is not None
    assert f"set VIPSRV_PEER_{kind.name.upper()} to the folder of its node_modules" in told


def test_a_program_is_found_by_its_variable_before_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen, on_path = made(tmp_path / "chosen"), made(tmp_path / "bin" / "imgproxy")
    assert Imgproxy([0]).command() == [str(on_path)]
    monkeypatch.setenv("VIPSRV_PEER_IMGPROXY", str(chosen))
    assert Imgproxy([0]).missing() is None
    assert Imgproxy([0]).command() == [str(chosen)]


def test_an_installed_program_is_found(tmp_path: Path) -> None:
    installed = made(tmp_path / "cache" / "peers" / "imaginary" / "imaginary")
    assert Imaginary([0]).missing() is None
    assert Imaginary([0]).command()[0] == str(installed)


def test_a_variable_that_points_to_nothing_makes_the_peer_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made(tmp_path / "bin" / "imgproxy")
    monkeypatch.setenv("VIPSRV_PEER_IMGPROXY", "/no/such")
    assert Imgproxy([0]).missing() == "VIPSRV_PEER_IMGPROXY=/no/such is no program that can be run"


def test_a_package_is_found_by_its_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made(tmp_path / "bin" / "node")
    monkeypatch.setenv("VIPSRV_PEER_IPX", str(tmp_path / "ipx"))
    assert Ipx([0]).missing() == f"VIPSRV_PEER_IPX={tmp_path / 'ipx'} has no node_modules/ipx"
    (tmp_path / "ipx" / "node_modules" / "ipx").mkdir(parents=True)
    assert Ipx([0]).missing() is None


class Fake(Served):
    """A peer that is really there."""

    name = "fake"
    what = "a fake"
    client = "bench.baselines.peers.http_client"

    def __init__(self, way: str, *, path: str | None = None) -> None:
        super().__init__([0])
        self._way = way
        self._path = path

    def version(self) -> str:
        return "fake 1"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "tests.bench.baselines.fake_peer", self._way]

    def client_arguments(self, request: Request) -> dict[str, Any]:
        path = self._path or f"/{request.width}/{request.height}"
        return {"path": path, "image": None if self._path else str(request.image)}


@pytest.fixture
def asked(tmp_path: Path) -> Request:
    path = tmp_path / "scene.jpg"
    photo(200, 130).save(path, quality=95)
    return Request(path, 60, 40)


@pytest.fixture
def clients() -> Iterator[ProcessGroup]:
    with ProcessGroup(1, [0]) as group:
        yield group


@pytest.mark.parametrize("way", ["length", "chunked", "close"])
def test_a_peer_is_asked_over_http(way: str, asked: Request, clients: ProcessGroup) -> None:
    with Fake(way) as fake:
        run = fake.load(asked, clients, count=4)
    assert open_exact(run.result).size == (60, 40)
    assert (run.requests, run.wrong, run.problem) == (4, 0, None)
    assert len(run.latencies) == 4
    assert min(run.latencies) > 0


def test_a_peer_reads_a_file_of_its_own_disk(asked: Request, clients: ProcessGroup) -> None:
    with Fake("length", path=f"/60/40{asked.image}") as fake:
        assert open_exact(fake.load(asked, clients, count=2).result).size == (60, 40)


class FakeReader(FileReader):
    """The same with a folder of its own."""

    name = "fake-reader"
    what = "a fake that reads files"

    def version(self) -> str:
        return "fake 1"

    def command(self) -> list[str]:
        return Fake("length").command()

    def wait_until_ready(self, process: subprocess.Popen[str]) -> int:
        return Served.wait_until_ready(self, process)

    def path(self, request: Request, name: str) -> str:
        return f"/{request.width}/{request.height}{self.folder}/{name}"


def test_each_client_of_a_file_reader_has_a_name_for_the_image(asked: Request) -> None:
    with ProcessGroup(2, [0]) as two, FakeReader([0]) as fake:
        assert fake.client_arguments(asked)["path"] == f"/60/40{fake.folder}/{{client}}-scene.jpg"
        assert (fake.folder / "0-scene.jpg").samefile(fake.folder / "1-scene.jpg")
        run = fake.load(asked, two, count=1)
    assert (run.requests, run.wrong) == (2, 0)
    assert not fake.folder.exists()


def test_wrong_results_of_a_peer_are_counted(asked: Request, clients: ProcessGroup) -> None:
    with Fake("sometimes-wrong") as fake:
        # The first of all requests prepares, so that the second and the fifth of six are the wrong ones.
        run = fake.load(asked, clients, count=6)
    assert run.wrong == 2
    assert run.problem == "the size is 61 × 40, not 60 × 40"


def test_a_refusal_of_a_peer_is_an_error() -> None:
    with Fake("length") as fake:
        connection = HttpConnection(fake.port)
        with pytest.raises(RuntimeError, match="the server answered with status 500"):
            connection.ask(request_bytes(fake.port, "/refused", None, None))
        connection.close()


def test_an_upload_has_its_length_and_kind(asked: Request) -> None:
    head, body = request_bytes(80, "/a", asked.image, None).split(b"\r\n\r\n", 1)
    assert head.startswith(b"POST /a HTTP/1.1\r\nHost: 127.0.0.1:80\r\nContent-Type: image/jpeg\r\n")
    assert body == asked.image.read_bytes()
    assert b"Content-Length: %d" % len(body) in head


def test_an_upload_as_a_form_has_the_image_as_its_field(asked: Request) -> None:
    head, body = request_bytes(80, "/a", asked.image, "image").split(b"\r\n\r\n", 1)
    assert b"Content-Type: multipart/form-data; boundary=" in head
    assert b"Content-Length: %d" % len(body) in head
    assert b'name="image"; filename="scene.jpg"' in body
    assert asked.image.read_bytes() in body
