"""A batch with several servers, of which one is not there."""

from pathlib import Path

import pytest

from tests.support.images import jpeg
from tests.support.running_server import RunningServer as Process
from tests.support.unused_port import unused_port
from vipsrv.batch import run
from vipsrv.batch.engines.local import RunningServer
from vipsrv.options import ResizeOptions


def test_the_addresses_are_separated_by_commas() -> None:
    client = RunningServer(address="127.0.0.1:1,tls://10.0.0.1:2").client()
    assert client.servers == ("127.0.0.1:1", "tls://10.0.0.1:2")


def test_each_has_to_be_an_address() -> None:
    with pytest.raises(ValueError, match="servers: 'http://b:1' is an address for HTTP"):
        RunningServer(address="a:1,http://b:1")


def test_all_images_are_done_by_the_server_that_is_there(tmp_path: Path) -> None:
    source, destination = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for number in range(12):
        (source / f"{number}.jpg").write_bytes(jpeg())
    with Process("--workers", "1") as server:
        servers = f"127.0.0.1:{unused_port()},127.0.0.1:{server.port}"
        rows = list(run(str(source), str(destination), [ResizeOptions(width=8, height=6)], server=servers))
    assert len(rows) == 12
    assert {row.status for row in rows} == {200}
