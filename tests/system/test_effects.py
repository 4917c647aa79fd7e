"""Effects, watermarks and placeholders of a real server, whose workers are confined."""

import http.client
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import StartServer
from tests.support.image_comparison import open_exact
from tests.support.images import encode, jpeg
from tests.support.running_server import serve
from vipsrv.client import Client
from vipsrv.errors import BadRequest
from vipsrv.options import Format, PlaceholderName, ResizeOptions

EFFECTS: tuple[dict[str, Any], ...] = (
    {"modulate": [1.2, 0.5]},
    {"grey": True},
    {"blur": 2},
    {"blur": 60},
    {"sharpen": True},
    {"sharpen": 1.5},
    {"rounded": 9},
    {"watermark": "logo", "watermark_opacity": 0.5},
)


@pytest.fixture
def logo(tmp_path: Path) -> Path:
    path = tmp_path / "logo.png"
    path.write_bytes(encode(Image.new("RGBA", (30, 20), (0, 255, 0, 255)), "PNG"))
    return path


def test_a_confined_worker_does_every_effect_with_what_it_loaded_at_its_start(
    start_server: StartServer, logo: Path
) -> None:
    server = start_server("--workers", "1", "--watermark", f"logo={logo}", "--watermark", f"other={logo}")
    logo.unlink()  # it was read at the start
    with Client(server.host, server.port) as client:
        assert client.hello().watermarks == ("logo", "other")
        for effect in EFFECTS:
            for format_ in ("jpeg", "png"):
                made = client.resize(jpeg(), width=90, height=60, format=format_, **effect)
                assert open_exact(made.data).size == (90, 60)
        marked = client.resize(jpeg(), width=90, height=60, format="png", watermark="other")
        assert open_exact(marked.data).getpixel((88, 58)) == (0, 255, 0)
        with pytest.raises(BadRequest, match="watermark: this server has no mark; it has logo, other"):
            client.resize(jpeg(), width=90, height=60, watermark="mark")


def test_a_watermark_that_cannot_be_decoded_fails_the_start(logo: Path) -> None:
    logo.write_bytes(logo.read_bytes()[:40])
    ended = serve("--port", "0", "--workers", "1", "--watermark", f"logo={logo}")
    assert ended.returncode == 1
    assert "watermark: logo: " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_watermark_that_cannot_be_read_fails_the_start() -> None:
    ended = serve("--port", "0", "--workers", "1", "--watermark", "logo=/nowhere/logo.png")
    assert ended.returncode != 0
    assert "the file /nowhere/logo.png cannot be read: No such file" in ended.stderr


ALL: tuple[PlaceholderName, ...] = ("thumbhash", "blurhash", "dominant", "average")


def test_placeholders_on_the_wire_and_over_http(start_server: StartServer) -> None:
    server = start_server("--workers", "1", "--listen", "127.0.0.1:0", "--listen", "http://127.0.0.1:0")
    image = encode(Image.new("RGB", (300, 200), (12, 34, 200)), "PNG")
    with Client(server.host, server.port) as client:
        plain = client.info(image)
        assert plain.placeholder is None
        info = client.info(image, placeholder=ALL)
        assert (info.width, info.height) == (plain.width, plain.height) == (300, 200)
        assert info.placeholder is not None
        assert info.placeholder.average == info.placeholder.dominant == "#0c22c8"
        one = client.resize(image, width=90, height=60, placeholder=["average"])
        assert one.placeholder is not None
        assert one.placeholder.to_meta() == {"average": "#0c22c8"}
        outputs = (ResizeOptions(width=90, height=60), ResizeOptions(width=30, height=20, format=Format.PNG))
        several = client.resize_all(image, outputs, placeholder=ALL)
        assert several.placeholder == info.placeholder
        assert client.resize(image, width=90, height=60).placeholder is None
        with pytest.raises(ValueError, match="placeholder: must be one of thumbhash"):
            client.info(image, placeholder=["colour"])  # type: ignore[list-item]
    (listener,) = (one for one in server.listeners if one.startswith("http://"))
    text = info.placeholder.thumbhash

    with closing(http.client.HTTPConnection(listener.removeprefix("http://"), timeout=30)) as connection:

        def post(path: str) -> tuple[int, str | None, bytes]:
            connection.request("POST", path, image)
            reply = connection.getresponse()
            return reply.status, reply.getheader("Vipsrv-Placeholder"), reply.read()

        _, field, _ = post("/resize?width=90&placeholder=average,thumbhash")
        assert field == f'thumbhash=:{text}:, average="#0c22c8"'
        assert post("/resize?width=90")[1] is None
        assert json.loads(post("/info?placeholder=average")[2])["placeholder"] == {"average": "#0c22c8"}
        assert post("/info?placeholder=colour")[0] == 400
        assert post("/info?width=9")[0] == 400
