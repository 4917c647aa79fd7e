"""crop, trim, flip, rotate, focus and pad of a real server, whose workers are confined."""

import http.client
from contextlib import closing
from typing import Any

import pytest

from tests.support.http_server import RunningHttpServer
from tests.support.image_comparison import open_exact
from tests.support.images import jpeg
from tests.support.running_server import RunningServer
from vipsrv.client import Client
from vipsrv.errors import BadRequest

VIEWS: tuple[tuple[dict[str, Any], tuple[int, int]], ...] = (
    ({"crop": [10, 10, 60, 40]}, (90, 60)),
    ({"crop": [0.1, 0.1, 0.5, 0.5], "flip": "both"}, (90, 60)),
    ({"trim": 5, "rotate": 90}, (90, 60)),
    ({"rotate": 33, "background": "#102030"}, (90, 60)),
    ({"fit": "cover", "focus": [0.1, 0.9], "pad": 5}, (100, 70)),
)


def test_a_confined_worker_does_every_view(server: RunningServer) -> None:
    with Client(server.host, server.port) as client:
        for options, size in VIEWS:
            for format_ in ("jpeg", "png"):
                made = client.resize(jpeg(), width=90, height=60, format=format_, **options)
                assert (made.width, made.height) == size
                assert open_exact(made.data).size == size
        with pytest.raises(BadRequest, match="crop: reaches beyond the page"):
            client.resize(jpeg(), width=90, height=60, crop=[0, 0, 2**31, 1])


def test_http_has_them_too(http_server: RunningHttpServer) -> None:
    query = "width=90&extract=0,0,0.5,1&flop=true&rotate=90&pad=1,2,3,4"
    with closing(http.client.HTTPConnection("127.0.0.1", http_server.port, timeout=30)) as connection:
        connection.request("POST", f"/resize?{query}", jpeg())
        reply = connection.getresponse()
        assert reply.status == 200
        assert open_exact(reply.read()).width == 96
