"""Buckets as sources and destinations, on real S3 servers."""

import asyncio
import itertools
import random
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.s3_server import ACCESS_KEY, SECRET_KEY, S3Kind, S3Server
from vipsrv.batch.images import ListedImage
from vipsrv.batch.stores.interface import READ_WHOLE, Destination
from vipsrv.batch.stores.object_place import RETRY_VARIABLE
from vipsrv.batch.stores.object_source import ObjectSource
from vipsrv.batch.stores.open_store import open_destination, open_source
from vipsrv.errors import StorageFailed

NUMBERS = itertools.count()

ODD_KEYS = ["ü b%20#?+&=~.jpg", "[x]{y}*|'\"\\.jpg", "x%2Fy", "<a>:;,@$!^`.jpg", "日本/x.jpg", "end "]


@pytest.fixture
def bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A new bucket: its URL, and the folder where the server keeps it."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(RETRY_VARIABLE, "60")
    name = f"bucket-{next(NUMBERS)}"
    return f"s3://{name}", s3.make_bucket(name)


async def keys_of(destination: Destination, prefix: str = "") -> list[str]:
    return sorted([key async for key in destination.keys(prefix)])


async def test_what_is_written_can_be_listed_and_read(bucket: tuple[str, Path]) -> None:
    url, folder = bucket
    destination = open_destination(f"{url}/some out%20/x/")
    for key in [*ODD_KEYS, ".vipsrv/parts/1.parquet", "x/y.jpg", "xx.jpg"]:
        await destination.write(key, key.encode())
    assert (folder / "some out%20/x/日本/x.jpg").read_text() == "日本/x.jpg"
    assert await keys_of(destination) == sorted([*ODD_KEYS, ".vipsrv/parts/1.parquet", "x/y.jpg", "xx.jpg"])
    assert await keys_of(destination, ".vipsrv/parts/") == [".vipsrv/parts/1.parquet"]
    assert await keys_of(destination, "x") == ["x%2Fy", "x/y.jpg", "xx.jpg"]
    for key in ODD_KEYS:
        assert await destination.read(key) == key.encode()
    await destination.write("xx.jpg", b"second")
    assert await destination.read("xx.jpg") == b"second"
    await destination.remove("xx.jpg")
    await destination.remove("xx.jpg")
    with pytest.raises(FileNotFoundError):
        await destination.read("xx.jpg")
    await destination.close()


async def test_objects_are_listed_with_size_time_and_etag(bucket: tuple[str, Path]) -> None:
    url, _ = bucket
    destination = open_destination(url)
    for key in (
        "in/a.jpg",
        "in/b/c d.jpg",
        "in/.hidden.jpg",
        "in/.vipsrv/p.parquet",
        "in/out/a.jpg",
        "ina.jpg",
    ):
        await destination.write(key, b"123")
    source = open_source(f"{url}/in/", destination=f"{url}/in/out")
    images = {image.key: image async for image in source.images()}
    assert set(images) == {"a.jpg", "b/c d.jpg"}
    image = images["a.jpg"]
    assert image.size == 3
    assert image.version == image.etag == "202cb962ac59075b964b07152d234b70"  # the MD5 of 123
    assert image.modified is not None
    assert image.modified > 1_700_000_000 * 10**9
    async with source.open(image) as content:
        assert isinstance(content, memoryview)
        assert bytes(content) == b"123"
    await source.close()
    await destination.close()


MORE_THAN_A_PAGE = 1100


async def test_more_objects_than_a_page_has(bucket: tuple[str, Path], s3: S3Server) -> None:
    url, folder = bucket
    for number in range(MORE_THAN_A_PAGE):
        (folder / f"{number:05}.jpg").write_bytes(b"1")
    s3.refresh()
    source = open_source(url)
    assert {image.key async for image in source.images()} == {
        f"{number:05}.jpg" for number in range(MORE_THAN_A_PAGE)
    }
    await source.close()


async def test_a_large_object_is_a_temporary_file(bucket: tuple[str, Path]) -> None:
    url, _ = bucket
    data = bytes(range(256)) * (READ_WHOLE // 256 + 1)
    destination, source = open_destination(url), open_source(url)
    await destination.write("large.tif", data)
    async with source.open(ListedImage(key="large.tif")) as content:
        assert hasattr(content, "fileno")
        assert content.read(len(data) + 1) == data  # type: ignore[union-attr]
    assert content.closed  # type: ignore[union-attr]
    await source.close()
    await destination.close()


async def test_a_large_object_is_read_to_its_end_though_the_server_is_killed_meanwhile(
    bucket: tuple[str, Path], s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = bucket
    data = random.Random(1).randbytes(48 * 2**20)  # more than the sockets hold
    (folder / "large.tif").write_bytes(data)
    s3.refresh()
    source = open_source(url)
    assert isinstance(source, ObjectSource)
    run = source._calls.run
    killed: list[object] = []

    async def run_and_kill(call: Callable[..., object], *args: object) -> object:
        if not killed:
            killed.append(call)
            await asyncio.to_thread(s3.restart, kill=True)
        return await run(call, *args)

    monkeypatch.setattr(source._calls, "run", run_and_kill)
    async with source.open(ListedImage(key="large.tif")) as content:
        assert content.read(len(data) + 1) == data  # type: ignore[union-attr]
    assert killed
    await source.close()


async def test_a_list_of_keys_in_a_bucket_names_objects_of_any_bucket(
    bucket: tuple[str, Path], s3: S3Server
) -> None:
    url, folder = bucket
    other = f"other-{next(NUMBERS)}"
    (s3.make_bucket(other) / "c d.jpg").write_bytes(b"other")
    (folder / "in").mkdir()
    (folder / "in/a.jpg").write_bytes(b"first")
    pq.write_table(pa.table({"key": ["a.jpg", f"s3://{other}/c d.jpg"]}), folder / "list.parquet")
    s3.refresh()
    source = open_source(f"{url}/list.parquet", base=f"{url}/in/")
    images = [image async for image in source.images()]
    assert [image.key for image in images] == ["a.jpg", f"{other}/c d.jpg"]
    for where in (source, open_source(source.url)):
        for image, content in zip(images, (b"first", b"other"), strict=True):
            async with where.open(image) as data:
                assert bytes(data) == content  # type: ignore[arg-type]
        await where.close()


async def test_results_have_the_content_type_of_their_ending(bucket: tuple[str, Path]) -> None:
    url, _ = bucket
    destination = open_destination(url)
    import obstore  # noqa: PLC0415 - what another client sees
    from obstore.store import S3Store  # noqa: PLC0415 - likewise

    store = S3Store(url.removeprefix("s3://"), client_options={"allow_http": True})
    for key, kind in {"a.webp": "image/webp", "b.JPG": "image/jpeg", "c.avif": "image/avif"}.items():
        await destination.write(key, b"1")
        assert obstore.get(store, key).attributes["Content-Type"] == kind
    await destination.close()


async def test_an_object_that_is_gone_and_one_that_is_refused(bucket: tuple[str, Path]) -> None:
    source = open_source(bucket[0])
    with pytest.raises(FileNotFoundError, match="404 NoSuchKey") as caught:
        async with source.open(ListedImage(key="a/nothing.jpg")):
            pass
    assert caught.value.filename == "a/nothing.jpg"
    for key in ("../x", "a//b", "a\n.jpg", ""):
        with pytest.raises(ValueError, match=r"key|path"):
            async with source.open(ListedImage(key=key)):
                pass
    destination = open_destination(bucket[0])
    with pytest.raises(OSError, match="KeyTooLong"):
        await destination.write("n" * 2000, b"1")
    assert await keys_of(destination) == []
    await destination.close()
    await source.close()


async def test_a_key_that_the_library_cannot_name_stops_the_listing(
    bucket: tuple[str, Path], s3: S3Server
) -> None:
    if s3.kind is S3Kind.RCLONE:
        pytest.skip("it shows such a key with other characters")
    url, folder = bucket
    (folder / "a\nb.jpg").write_bytes(b"1")
    source = open_source(url)
    with pytest.raises(StorageFailed, match="rename that object, or name the others in a list of keys"):
        [image async for image in source.images()]
    await source.close()


async def failures(url: str) -> list[str]:
    """What listing, reading and writing say."""
    source, destination = open_source(url), open_destination(url)
    said = []

    async def read() -> None:
        async with source.open(ListedImage(key="a.jpg")):
            pass

    async def list_() -> None:
        [image async for image in source.images()]

    for action in (list_(), read(), destination.write("a.jpg", b"1")):
        with pytest.raises(StorageFailed) as caught:
            await action
        assert caught.value.place == url
        assert "\n" not in str(caught.value)
        said.append(str(caught.value))
    await source.close()
    await destination.close()
    return said


@pytest.mark.usefixtures("bucket")
async def test_a_bucket_that_is_missing_fails_as_a_whole() -> None:
    for text in await failures("s3://no-such-bucket"):
        assert text.startswith("s3://no-such-bucket: 404 NoSuchBucket")
        assert text.endswith("; make the bucket, or correct its name, then run the same command again")


async def test_wrong_credentials_fail_as_a_whole(
    bucket: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-but-long-enough")
    for text in await failures(bucket[0]):
        assert "403 SignatureDoesNotMatch" in text
        assert "the credentials are wrong or have expired: set the variables" in text


async def test_a_server_that_is_down_is_waited_for_and_then_fails_as_a_whole(
    bucket: tuple[str, Path], s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = bucket
    (folder / "a.jpg").write_bytes(b"12")
    patient = open_source(url)
    monkeypatch.setenv(RETRY_VARIABLE, "0.3")
    s3.stop(kill=True)
    try:
        for text in await failures(url):
            assert "(Connection refused); make it available again, then run the same command again" in text

        async def read() -> bytes:
            async with patient.open(ListedImage(key="a.jpg")) as content:
                return bytes(content)  # type: ignore[arg-type]

        reading = asyncio.ensure_future(read())
        await asyncio.sleep(0)
    finally:
        await asyncio.to_thread(s3.start)
    assert await reading == b"12"
    await patient.close()


async def test_without_tls_only_a_server_on_this_machine_is_used(
    bucket: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://192.0.2.1:9000")  # of a documentation network: nobody's
    monkeypatch.setenv(RETRY_VARIABLE, "0")
    for text in await failures(bucket[0]):
        assert "use https for the endpoint, or allow http by AWS_ALLOW_HTTP=true, then run the same" in text


async def test_urls_and_settings_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="there is no bucket in it; it is s3://BUCKET/PREFIX"):
        open_source("s3://")
    with pytest.raises(ValueError, match="is the source and the destination"):
        open_source("s3://a/b/", destination="s3://a/b")
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(
        ValueError, match="az://a/b: Account must be specified; set AZURE_STORAGE_ACCOUNT_NAME"
    ):
        open_source("az://a/b")
    monkeypatch.setenv(RETRY_VARIABLE, "soon")
    with pytest.raises(ValueError, match="'soon' is not a number of seconds"):
        open_destination("s3://a")


async def test_credentials_that_may_read_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store may refuse each object as if it were about that one; a bucket that was listed says more."""

    class Denying(BaseHTTPRequestHandler):
        denies = False

        def do_GET(self) -> None:
            is_list = "list-type" in self.path
            status, code = (200, "") if is_list and not self.denies else (403, "<Code>AccessDenied</Code>")
            content = "<Key>a.jpg</Key><Size>1</Size><LastModified>2026-01-02T03:04:05Z</LastModified>"
            listing = f"<ListBucketResult><Contents>{content}</Contents></ListBucketResult>"
            body = f"<Error>{code}</Error>" if code else listing
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Denying)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    source = ObjectSource("s3://photos")

    async def read(image: ListedImage) -> None:
        async with source.open(image):
            pass

    try:
        (image,) = [one async for one in source.images()]
        with pytest.raises(PermissionError):  # the others may be readable
            await read(image)
        Denying.denies = True
        with pytest.raises(StorageFailed, match="list the bucket"):
            await read(image)
    finally:
        await source.close()
        server.shutdown()
        thread.join()
        server.server_close()
