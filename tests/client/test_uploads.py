"""Uploads that are resumed, by both clients and a fake server that breaks the connection."""

from pathlib import Path
from typing import Any

import pytest

from tests.client.conftest import MakeClient, Serve
from tests.client.fake_server import SIZE, Peer
from vipsrv import Retry
from vipsrv.protocol import Kind

IMAGE = bytes(range(256)) * 8192  # 2 MiB
HALF = len(IMAGE) // 2
HELLO: dict[str, Any] = {
    "server": "fake",
    "limits": {},
    "formats": {"in": [], "out": []},
    "fits": [],
    "uploads": {"ttl_s": 60, "max_bytes": 2**40},
}


class Keeper:
    """Takes half of the image, closes, and takes the rest over the next connection."""

    def __init__(self) -> None:
        self.metas: list[dict[str, Any]] = []
        self.got = b""

    def first(self, peer: Peer) -> None:
        self._answer_hello(peer)
        head = peer.read_head()
        assert head is not None
        self.metas.append(head.meta)
        while len(self.got) < HALF:
            self.got += peer.socket.recv(HALF - len(self.got))

    def second(self, peer: Peer) -> None:
        head, _ = peer.read_request()
        assert head.kind == Kind.UPLOAD_STATUS
        self.metas.append(head.meta)
        peer.reply(head, received=len(self.got), size=len(IMAGE))
        head, body = peer.read_request()
        self.metas.append(head.meta)
        self.got += body
        peer.reply(head)

    def _answer_hello(self, peer: Peer) -> None:
        head, _ = peer.read_request()
        assert head.kind == Kind.HELLO
        peer.reply(head, **HELLO)


@pytest.mark.parametrize("kind", ["bytes", "path", "file"])
def test_the_rest_of_an_image_is_sent(
    make_client: MakeClient, serve: Serve, tmp_path: Path, kind: str
) -> None:
    keeper, sent, resumed = Keeper(), list[int](), list[int]()
    server = serve(keeper.first, keeper.second)
    path = tmp_path / "image"
    path.write_bytes(IMAGE if kind != "file" else b"in front" + IMAGE)
    with path.open("rb") as file:
        file.seek(len(b"in front"))
        image = {"bytes": IMAGE, "path": path, "file": file}[kind]
        client = make_client(port=server.port, retry=Retry(), resumable_from=len(IMAGE))
        result = client.call("resize", image, **SIZE, on_sent=sent.append, on_resumed=resumed.append)
    assert keeper.got == IMAGE
    upload_id = keeper.metas[0]["upload"]["id"]
    assert keeper.metas[0]["upload"] == {"id": upload_id, "size": len(IMAGE), "offset": 0}
    assert keeper.metas[1] == {"id": upload_id}
    assert keeper.metas[2]["upload"] == {"id": upload_id, "size": len(IMAGE), "offset": HALF}
    assert (result.attempts, result.resumed, resumed) == (2, HALF, [HALF])
    assert HALF < result.sent < HALF + 1000
    assert sent[-1] == len(IMAGE)


@pytest.mark.parametrize("options", [{"resumable_from": None}, {"retry": Retry.none()}])
def test_it_can_be_switched_off(make_client: MakeClient, serve: Serve, options: dict[str, Any]) -> None:
    metas: list[dict[str, Any]] = []

    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        metas.append(head.meta)
        peer.reply(head)

    image = bytes(8 * 2**20)
    make_client(port=serve(script).port, **{"retry": Retry(), **options}).call("resize", image, **SIZE)
    assert "upload" not in metas[0]


def test_an_id_that_is_none(make_client: MakeClient, serve: Serve) -> None:
    client = make_client(port=serve().port)
    with pytest.raises(ValueError, match="upload_id: must be 32 lower-case hex digits"):
        client.call("resize", b"image", **SIZE, upload_id="5")


def test_a_resumable_from_that_is_no_size(make_client: MakeClient) -> None:
    with pytest.raises(ValueError, match="resumable_from"):
        make_client(resumable_from=-1)
