"""Animations through a real server, whose workers are confined: over both protocols."""

import httpx
import pytest

from tests.conftest import StartServer
from tests.support.animations import DELAYS, animation, seen, timing
from tests.support.http_server import RunningHttpServer
from vipsrv.client import Client
from vipsrv.errors import BadRequest, TooLarge


def test_a_confined_worker_makes_every_animation(start_server: StartServer) -> None:
    server = start_server("--workers", "1", "--max-frames", "4")
    with Client(server.host, server.port) as client:
        for kind in ("GIF", "WEBP", "PNG"):
            for format_ in ("gif", "webp"):
                made = client.resize(animation(kind), width=30, pages="all", format=format_)
                assert (made.frames, made.source.pages, timing(made.data)[0]) == (4, 4, list(DELAYS))
                assert seen(made.data)[3].size == (30, 20)
        assert client.info(animation("PNG")).pages == 4
        assert client.resize(animation("GIF"), width=30, format="auto").frames == 1
        with pytest.raises(BadRequest, match=r"format: jpeg cannot hold the 4 frames.*: webp, gif"):
            client.resize(animation("GIF"), width=30, pages="all")
        many = animation("GIF", seen(animation("GIF")) + seen(animation("GIF")), delays=[50] * 8)
        with pytest.raises(TooLarge, match="the result would have 8 frames; max-frames allows 4"):
            client.resize(many, width=30, pages="all", format="gif")


@pytest.mark.parametrize(
    ("accept", "pages", "result"),
    [
        ("image/avif,image/webp,*/*", "&pages=all", "webp;frames=4"),
        ("image/avif,*/*", "&pages=all", "gif;frames=4"),
        ("image/avif,image/webp,*/*", "", "avif;frames=1"),
        ("*/*", "&pages=1-2", "gif;frames=2"),
        ("*/*", "", "gif;frames=1"),
    ],
)
def test_accept_loses_no_frame_without_a_word(
    http_server: RunningHttpServer, accept: str, pages: str, result: str
) -> None:
    response = httpx.post(
        f"{http_server.url}/resize?width=30&format=auto{pages}",
        content=animation("GIF"),
        headers={"Accept": accept},
        timeout=60,
    )
    assert response.status_code == 200, response.text
    format_, *facts = response.headers["Vipsrv-Result"].split(";")
    assert f"{format_};{facts[-1]}" == result
    assert ";pages=4;" in response.headers["Vipsrv-Source"]
    assert response.headers["Content-Type"] == f"image/{format_}"
