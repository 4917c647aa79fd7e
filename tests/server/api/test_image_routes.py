"""The routes for images, from the head of a request to its reply, without any socket."""

import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from tests.server.api.bodies import header, whole_body
from tests.server.api.requests import request
from tests.server.fakes import MANY, FakeWorkers, fill, make_context
from tests.server.identity.records import add
from vipsrv.errors import BadRequest, InternalError, TooLarge, UnsupportedFormat
from vipsrv.options import Format, ImageInfo, OutputInfo
from vipsrv.server.access import Access, Session
from vipsrv.server.api.image_routes import image_routes
from vipsrv.server.context import ServerContext
from vipsrv.server.exchange import Exchange
from vipsrv.server.http.messages import HttpRequest, HttpResponse
from vipsrv.server.http.routes import ImageRoute, ImageTask, Page
from vipsrv.server.identity import Identities
from vipsrv.workers.channel import Digest, Operation, ResultDigest
from vipsrv.workers.job import Outcome

SOURCE = ImageInfo(format="png", width=40, height=30, pages=1, has_alpha=True, orientation=1, size=1000)
DESCRIBED: dict[str, Any] = {
    "server": "vipsrv/0",
    "limits": {
        "max_upload": 9,
        "max_pixels": 8,
        "max_output_pixels": 7,
        "deadline_ms": 6,
        "workers": 5,
        "queue_per_client": 4,
    },
    "formats": {"in": ["jpeg", "png"], "out": ["jpeg", "png", "webp", "avif"]},
    "libraries": {"jpeg": "libvips", "png": "libvips"},
    "fits": ["fill"],
}


@pytest.fixture
def workers() -> FakeWorkers:
    return FakeWorkers(free=MANY)


@pytest.fixture
def context(tmp_path: Path, workers: FakeWorkers) -> Iterator[ServerContext]:
    one = make_context(tmp_path, workers)
    one.describe = lambda: DESCRIBED
    yield one
    one.spool.close()


def begin(
    context: ServerContext, target: str, fields: dict[str, str] | None = None, session: Session | None = None
) -> ImageTask:
    head = request("POST", target, fields, session=session)
    route = image_routes(context).routes[head.path]
    assert isinstance(route, ImageRoute)
    return route.begin(head)


def answer(context: ServerContext, head: HttpRequest) -> HttpResponse:
    page = image_routes(context).routes[head.path]
    assert isinstance(page, Page)
    response = page.answer(head)
    assert isinstance(response, HttpResponse)
    return response


def finish(context: ServerContext, workers: FakeWorkers, task: ImageTask, *results: bytes) -> Exchange:
    """The exchange of a task whose job has ended with these results, and whose outcome was taken."""
    exchange = Exchange(context, task.operation, context.accounts.open_flow("test"), lambda _: None)
    exchange.accept(task.meta, SOURCE.size, task.digest)
    assert exchange.slot is not None
    fill(exchange.slot)
    exchange.body_ended()
    job = workers.jobs.pop()
    stored = b"".join(results)
    outcome = Outcome(source=SOURCE, started=exchange.timeline.received, ended=exchange.timeline.received)
    if results:
        outcome.outputs = tuple(
            OutputInfo(width=20 + number, height=15, format="webp", quality=80, size=len(result))
            for number, result in enumerate(results)
        )
        outcome.result = fill(context.spool.open(len(stored)), stored)
        outcome.digests = tuple(
            ResultDigest(tag=blake2b(one, digest_size=16).digest(), crc=zlib.crc32(one)) for one in results
        )
    job.close()
    job.answer(outcome)
    exchange.take_outcome()
    return exchange


def test_one_result(context: ServerContext, workers: FakeWorkers) -> None:
    fields = {"x-request-id": "my id 7", "content-type": "text/plain"}
    task = begin(context, "/resize?width=20&height=15&quality=80&format=webp", fields)
    assert task.operation is Operation.RESIZE
    assert task.form_boundary is None
    assert task.digest is Digest.TAG
    assert task.meta == {
        "width": 20,
        "height": 15,
        "quality": 80,
        "format": "webp",
        "fit": "fill",
        "request_id": "my id 7",
    }
    response = task.reply(finish(context, workers, task, b"the result"))
    assert response.status == 200
    headers = dict(response.headers)
    timing = headers.pop("Server-Timing")
    assert [stage.partition(";dur=")[0] for stage in timing.split(", ")] == [
        *("receive", "queue", "process", "total")
    ]
    assert headers == {
        "Content-Type": "image/webp",
        "ETag": f'"{blake2b(b"the result", digest_size=16).hexdigest()}"',
        "Vipsrv-Source": "png;width=40;height=30;pages=1;has_alpha=?1;orientation=1;size=1000",
        "Vipsrv-Result": "webp;width=20;height=15;quality=80;size=10",
        "Vipsrv-Ratio": "100.000",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
        "X-Request-Id": "my id 7",
    }
    assert response.content_size == 10
    assert whole_body(response) == b"the result"


def test_the_facts_are_structured_fields(context: ServerContext, workers: FakeWorkers) -> None:
    http_sf = pytest.importorskip("http_sf", reason="http-sf parses structured fields")
    task = begin(context, "/resize?outputs=20x15,21x15")
    response = task.reply(finish(context, workers, task, b"one", b"second"))
    source = http_sf.parse(header(response, "Vipsrv-Source").encode(), tltype="item")
    assert (str(source[0]), source[1]["has_alpha"], source[1]["size"]) == ("png", True, 1000)
    results = http_sf.parse(header(response, "Vipsrv-Result").encode(), tltype="list")
    assert [(str(name), facts["size"]) for name, facts in results] == [("webp", 3), ("webp", 6)]
    assert float(http_sf.parse(header(response, "Vipsrv-Ratio").encode(), tltype="item")[0]) == 111.111
    whole_body(response)


def test_several_results_as_parts(context: ServerContext, workers: FakeWorkers) -> None:
    task = begin(context, "/resize?outputs=20x15,21x15")
    response = task.reply(finish(context, workers, task, b"one", b"second"))
    assert header(response, "Content-Type").startswith('multipart/mixed; boundary="')
    assert header(response, "Vary") == "Accept"
    size = response.content_size
    body = whole_body(response)
    assert len(body) == size
    assert b"\r\n\r\none\r\n--" in body
    assert b"\r\n\r\nsecond\r\n--" in body


def test_a_list_of_one_result_is_a_list(context: ServerContext, workers: FakeWorkers) -> None:
    task = begin(context, "/resize?outputs=20x")
    response = task.reply(finish(context, workers, task, b"one"))
    assert header(response, "Content-Type").startswith("multipart/mixed")
    whole_body(response)


def test_several_results_as_a_zip_file(context: ServerContext, workers: FakeWorkers) -> None:
    task = begin(context, "/resize?outputs=20x15,21x15", {"accept": "application/zip"})
    assert task.digest is Digest.TAG_AND_CRC
    response = task.reply(finish(context, workers, task, b"one", b"second"))
    assert header(response, "Content-Type") == "application/zip"
    with zipfile.ZipFile(io.BytesIO(whole_body(response))) as archive:
        assert archive.testzip() is None
        assert [archive.read(name) for name in archive.namelist()] == [b"one", b"second"]


def test_a_result_that_cannot_be_sent_is_closed(context: ServerContext, workers: FakeWorkers) -> None:
    task = begin(context, "/resize?outputs=20x15,21x15", {"accept": "application/zip"})
    exchange = finish(context, workers, task, b"one", b"second")
    assert exchange.outcome is not None
    exchange.outcome.outputs = tuple(replace(one, size=1 << 32) for one in exchange.outcome.outputs)
    with pytest.raises(TooLarge):
        task.reply(exchange)
    assert exchange.outcome.result is not None
    assert exchange.outcome.result.closed


@pytest.mark.parametrize("target", ["/resize?width=9", "/info"])
def test_a_reply_without_anything_is_an_error_of_the_server(
    context: ServerContext, workers: FakeWorkers, target: str
) -> None:
    task = begin(context, target)
    exchange = finish(context, workers, task, b"one")
    exchange.outcome = None
    with pytest.raises(InternalError):
        task.reply(exchange)


def test_auto_honours_the_header_accept(context: ServerContext, workers: FakeWorkers) -> None:
    fields = {"accept": "image/avif,image/webp,*/*;q=0.8"}
    task = begin(context, "/resize?width=20&format=auto", fields)
    assert task.meta["format"] == "avif"
    response = task.reply(finish(context, workers, task, b"x"))
    assert header(response, "Vary") == "Accept"
    whole_body(response)
    assert begin(context, "/resize?width=20&format=auto", {"accept": "*/*"}).meta["format"] == "auto"
    assert begin(context, "/resize?width=20", fields).meta.get("format", Format.JPEG) == "jpeg"
    context.describe = lambda: {**DESCRIBED, "formats": {"in": ["jpeg"], "out": ["jpeg", "webp"]}}
    assert begin(context, "/resize?width=20&format=auto", fields).meta["format"] == "webp"


def test_auto_keeps_to_the_formats_of_the_token(context: ServerContext, tmp_path: Path) -> None:
    session = make_session(context, tmp_path, formats=["webp", "png"])
    fields = {"accept": "image/avif,image/webp,*/*;q=0.8"}
    assert begin(context, "/resize?width=2&format=auto", fields, session).meta["format"] == "webp"


def make_session(context: ServerContext, folder: Path, **limits: Any) -> Session:
    path = folder / "tokens.toml"
    token = add(path, "shop", limits=limits)
    access = Access(Identities(path))
    context.access = access
    identity = access.login(token.text, "192.0.2.1")
    return access.session(identity, context.accounts.open_flow("identity:shop").account)


def test_fields_of_a_form_are_parameters(context: ServerContext) -> None:
    fields = {"content-type": "multipart/form-data; boundary=abc", "accept": "image/webp"}
    task = begin(context, "/resize?width=20", fields)
    assert task.form_boundary == b"abc"
    task.form_field("format", "auto")
    task.form_field("height", "15")
    assert task.meta == {"width": 20, "height": 15, "format": "webp", "fit": "fill"}
    with pytest.raises(BadRequest, match="height: is given twice"):
        task.form_field("height", "15")
    with pytest.raises(BadRequest, match="outputs: has all sizes"):
        task.form_field("outputs", "8x")


def test_an_empty_field_of_a_form_is_left_out(context: ServerContext) -> None:
    task = begin(context, "/resize", {"content-type": "multipart/form-data; boundary=abc"})
    for name, value in (("width", "20"), ("height", ""), ("fit", ""), ("toFormat", ""), ("outputs", "")):
        task.form_field(name, value)
    assert task.meta == {"width": 20, "fit": "inside"}
    task.form_field("height", "15")  # it was not given
    with pytest.raises(BadRequest, match="widht: is no parameter"):
        task.form_field("widht", "")
    with pytest.raises(BadRequest, match="height: must be a whole number"):
        begin(context, "/resize?height=")


def test_ids_of_the_request(context: ServerContext) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for target in ("/resize?width=1", "/info"):
        fields = {"x-request-id": "a", "traceparent": trace, "tracestate": "b=1"}
        meta = begin(context, target, fields).meta
        assert (meta["request_id"], meta["traceparent"], meta["tracestate"]) == ("a", trace, "b=1")


@pytest.mark.parametrize("value", ["", "x" * 129, "a\tb", "ä"])
def test_an_id_that_cannot_be_echoed_is_refused(context: ServerContext, value: str) -> None:
    with pytest.raises(BadRequest, match=r"^X-Request-Id: must have"):
        begin(context, "/info", {"x-request-id": value})


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("/resize?w=8", "w: is no parameter"),
        ("/resize?width=8&width=8", "width: is given twice"),
        ("/resize?width=%zz", "is not percent-encoded"),
        ("/info?width=8", "width: /info has no parameters"),
    ],
)
def test_an_invalid_request_is_refused_by_its_head(context: ServerContext, target: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        begin(context, target)


def test_a_form_without_a_boundary_is_refused(context: ServerContext) -> None:
    for target in ("/resize?width=1", "/info"):
        with pytest.raises(BadRequest, match="needs a boundary"):
            begin(context, target, {"content-type": "multipart/form-data"})


def test_a_body_that_is_compressed_once_more_is_refused(context: ServerContext) -> None:
    for target in ("/resize?width=1", "/info"):
        with pytest.raises(UnsupportedFormat, match="Content-Encoding: gzip is not supported"):
            begin(context, target, {"content-encoding": "gzip"})
        begin(context, target, {"content-encoding": "Identity"})


def test_the_facts_of_an_image(context: ServerContext, workers: FakeWorkers) -> None:
    task = begin(context, "/info", {"x-request-id": "a"})
    assert task.digest is None
    response = task.reply(finish(context, workers, task))
    assert header(response, "Content-Type") == "application/json"
    assert header(response, "X-Request-Id") == "a"
    assert json.loads(response.body) == {
        "source": {
            "format": "png",
            "width": 40,
            "height": 30,
            "pages": 1,
            "has_alpha": True,
            "orientation": 1,
            "size": 1000,
        }
    }


def test_the_formats(context: ServerContext, tmp_path: Path) -> None:
    response = answer(context, request("GET", "/formats"))
    assert header(response, "Content-Type") == "application/json"
    assert json.loads(response.body) == DESCRIBED
    session = make_session(context, tmp_path, formats=["png"])
    described = json.loads(answer(context, request("GET", "/formats", session=session)).body)
    assert described["formats"] == {"in": ["png"], "out": ["png"]}
    assert described["identity"] == "shop"
    with pytest.raises(BadRequest, match="/formats has no parameters"):
        answer(context, request("GET", "/formats?x=1"))


def test_only_the_openapi_document_is_public(context: ServerContext) -> None:
    routes = image_routes(context).routes
    assert [path for path, route in routes.items() if isinstance(route, Page) and route.public] == [
        "/openapi.json"
    ]


def test_cors_follows_the_settings(context: ServerContext) -> None:
    routes = image_routes(context)
    head = request("POST", "/resize", {"origin": "https://a.example"})
    assert routes.more_headers(head) == ()
    context.change_settings(context.settings.model_copy(update={"cors_origin": ("https://a.example",)}))
    assert ("Access-Control-Allow-Origin", "https://a.example") in routes.more_headers(head)
