"""What a server reads, as it is started: `--formats` and `--tolerate-truncated`, from outside."""

from tests.conftest import StartServer
from tests.pipeline.run import sample
from tests.support import bare_client
from tests.support.image_comparison import mean_abs_difference, open_exact, reference
from tests.support.images import jpeg, truncated
from tests.support.running_server import RunningServer
from tests.system.test_version2 import Connection
from vipsrv.protocol import Kind
from vipsrv.version import __version__


def hello(server: RunningServer) -> dict[str, object]:
    with bare_client.connect(server.port) as sock:
        return Connection(sock).call(Kind.HELLO).meta


def test_a_disabled_format_is_refused_and_the_enabled_ones_are_named(start_server: StartServer) -> None:
    server = start_server("--workers", "1", "--formats", "png,bmp")
    error = bare_client.ask(server.port, jpeg()).error
    assert (error["status"], error["code"]) == (415, "unsupported_format")
    assert "looks like JPEG, which this server does not read" in error["message"]
    assert error["message"].endswith("send one of: png, bmp")
    for name in ("png", "bmp"):
        assert open_exact(bare_client.ask(server.port, sample(name), 64, 48).result).size == (64, 48)


def test_hello_lists_the_enabled_formats(start_server: StartServer) -> None:
    meta = hello(start_server("--workers", "1", "--formats", "png,bmp"))
    assert meta["formats"]["in"] == ["png", "bmp"]  # type: ignore[index]
    libraries = meta["libraries"]
    assert isinstance(libraries, dict)
    assert libraries.keys() == {"png", "bmp"}
    assert libraries["png"].startswith("libvips pngload 8.")
    assert libraries["bmp"] == f"vipsrv {__version__}"


def test_a_truncated_image_is_refused(server: RunningServer) -> None:
    error = bare_client.ask(server.port, truncated(jpeg())).error
    assert (error["status"], error["code"]) == (422, "corrupt_image")


def test_a_truncated_image_is_tolerated_if_that_is_allowed(start_server: StartServer) -> None:
    server = start_server("--workers", "1", "--tolerate-truncated")
    seen = open_exact(bare_client.ask(server.port, truncated(jpeg()), 160, 120).result)
    there = (0, 0, 160, 40)
    assert mean_abs_difference(seen.crop(there), reference(jpeg(), 160, 120).crop(there)) < 6
