"""The options of a RESIZE as both clients send them, and several results of one upload."""

import io
import os
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from tests.client.conftest import MakeClient, Serve
from tests.client.fake_server import SECONDS, SIZE, SOURCE, FakeServer, Peer, Script, every
from tests.support.images import jpeg
from tests.support.running_server import RunningServer
from vipsrv.client import ResizedImage, ResizeResults
from vipsrv.errors import BadRequest, ProtocolError
from vipsrv.options import Chroma, Fit, Format, ImageInfo, Keep, Position, ResizeOptions, Timings
from vipsrv.protocol import MAX_META_SIZE

PLAIN = ResizeOptions(width=8, height=6)
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ASKED = (
    PLAIN,
    ResizeOptions(width=4, fit=Fit.INSIDE, format=Format.WEBP, quality=40),
    ResizeOptions(height=3, fit=Fit.COVER, format=Format.AUTO),
)
TOLD = (
    {"width": 8, "height": 6, "format": "jpeg", "quality": 85, "size": 5},
    {"width": 4, "height": 3, "format": "webp", "quality": 40, "size": 10},
    {"width": 4, "height": 3, "format": "png", "quality": 85, "size": 2},
)
BODY = b"first" + b"the second" + b"3."


def recording(seen: list[dict[str, Any]]) -> Script:
    """Records the meta of every request."""

    def script(peer: Peer) -> None:
        while (head := peer.read_head()) is not None:
            seen.append(head.meta)
            peer.reply(head, body=peer.read_body())

    return script


def answering(body: bytes, *outputs: dict[str, Any]) -> Script:
    """Answers the first request with these outputs, whatever it asked for, and the others correctly."""

    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.reply(head, body=body, outputs=list(outputs))
        every(peer)

    return script


# What goes over the wire


@pytest.mark.parametrize(
    ("options", "meta"),
    [
        ({"fit": Fit.CONTAIN}, {"fit": "contain"}),
        ({"fit": "cover", "position": "right top"}, {"fit": "cover", "position": "right top"}),
        ({"fit": "cover", "position": Position.ATTENTION}, {"fit": "cover", "position": "attention"}),
        ({"fit": Fit.INSIDE}, {"fit": "inside"}),
        ({"fit": "outside", "height": None}, {"fit": "outside"}),
        *(({"format": kind}, {"format": kind.value}) for kind in Format if kind is not Format.JPEG),
        ({"quality": 1}, {"quality": 1}),
        ({"quality": 85}, {"quality": 85}),  # not left out: the server's own may be another
        ({"format": "webp", "lossless": True}, {"format": "webp", "lossless": True}),
        ({"max_bytes": 100_000}, {"max_bytes": 100_000}),
        ({"background": "#102030"}, {"background": "#102030"}),
        *(({"keep": keep}, {"keep": keep.value}) for keep in Keep if keep is not Keep.NONE),
        ({"page": 2}, {"page": 2}),
        ({"enlarge": False}, {"enlarge": False}),
        ({"deadline_ms": 1500}, {"deadline_ms": 1500}),
        ({"request_id": "order 7"}, {"request_id": "order 7"}),
        ({"traceparent": TRACEPARENT}, {"traceparent": TRACEPARENT}),
        ({"traceparent": "of a program far away"}, {}),
        (
            {
                "fit": "fill",
                "position": "centre",
                "format": Format.JPEG,
                "quality": None,
                "lossless": False,
                "max_bytes": None,
                "background": "#ffffff",
                "keep": Keep.NONE,
                "page": 0,
                "enlarge": True,
                "deadline_ms": None,
            },
            {},
        ),
    ],
    ids=str,
)
def test_every_option_arrives_and_defaults_are_left_out(
    make_client: MakeClient, serve: Serve, options: dict[str, Any], meta: dict[str, Any]
) -> None:
    seen: list[dict[str, Any]] = []
    client = make_client(port=serve(recording(seen)).port)
    client.call("resize", b"image", **{**SIZE, **options})
    expected = {**SIZE, **meta}
    if "height" in options:
        del expected["height"]
    assert seen == [expected]


def test_several_results_of_one_upload(make_client: MakeClient, serve: Serve) -> None:
    seen: list[object] = []

    def script(peer: Peer) -> None:
        head, body = peer.read_request()
        seen.extend([head.meta, body])
        peer.reply(head, body=BODY, outputs=list(TOLD), ratio=0.29)

    client = make_client(port=serve(script).port)
    results: ResizeResults = client.call(
        "resize_all", b"image", ASKED, deadline_ms=500, request_id="a", traceparent=TRACEPARENT
    )
    outputs = [
        {"width": 8, "height": 6},
        {"width": 4, "fit": "inside", "format": "webp", "quality": 40},
        {"height": 3, "fit": "cover", "format": "auto"},
    ]
    common = {"deadline_ms": 500, "request_id": "a", "traceparent": TRACEPARENT}
    assert seen == [{"outputs": outputs, **common}, b"image"]
    assert results.outputs == (
        ResizedImage(data=b"first", width=8, height=6, format="jpeg", quality=85, ratio=1.0),
        ResizedImage(data=b"the second", width=4, height=3, format="webp", quality=40, ratio=0.5),
        ResizedImage(data=b"3.", width=4, height=3, format="png", quality=85, ratio=2.5),
    )
    assert results.source == ImageInfo.from_meta(SOURCE)
    assert results.timings == Timings(receive=1.0, queue=2.0, process=3.0, total=6.0)
    assert results.ratio == 0.29
    assert results.sent > 28 + 5
    assert results.received > 28 + len(BODY)
    assert 0 < results.elapsed < SECONDS
    assert "the second" not in repr(results)


def test_one_output_is_the_same_as_its_options_alone(make_client: MakeClient, serve: Serve) -> None:
    seen: list[dict[str, Any]] = []
    client = make_client(port=serve(recording(seen)).port)
    results: ResizeResults = client.call(
        "resize_all", b"image", [ResizeOptions(width=8, height=6, quality=70)]
    )
    client.call("resize", b"image", **SIZE, quality=70)
    assert seen[0] == seen[1] == {**SIZE, "quality": 70}
    assert [output.data for output in results.outputs] == [b"image"]


def test_large_results_are_separated(make_client: MakeClient, serve: Serve) -> None:
    images = [os.urandom(size) for size in (700_001, 1, 65_536, 300_000)]
    told = [{**TOLD[0], "size": len(photo)} for photo in images]
    client = make_client(port=serve(answering(b"".join(images), *told)).port)
    results: ResizeResults = client.call("resize_all", b"image", [PLAIN] * 4)
    assert [output.data for output in results.outputs] == images


def test_progress_is_reported_during_the_upload(make_client: MakeClient, serve: Serve) -> None:
    told: list[int] = []
    server = serve(answering(BODY, *TOLD))
    make_client(port=server.port).call("resize_all", bytes(1_000_000), ASKED, on_sent=told.append)
    assert told == sorted(told)
    assert told[-1] == 1_000_000


def test_one_result_from_the_real_server(make_client: MakeClient, server: RunningServer) -> None:
    client = make_client(server.host, server.port)
    results: ResizeResults = client.call("resize_all", jpeg(400, 300), [ResizeOptions(width=80, height=60)])
    (output,) = results.outputs
    assert (output.width, output.height, output.format) == (80, 60, "jpeg")
    assert output.data.startswith(b"\xff\xd8\xff")
    assert results.ratio == pytest.approx(output.ratio, abs=0.01)


def test_how_results_are_encoded_by_the_real_server(make_client: MakeClient, server: RunningServer) -> None:
    client = make_client(server.host, server.port)
    likely = ResizeOptions(width=160, height=120, format=Format.WEBP, min_ssim=0.9)
    others = [
        ResizeOptions(width=80, height=60, progressive=True, chroma=Chroma.FULL),
        ResizeOptions(width=80, height=60, format=Format.PNG, palette=True, quality=40),
    ]
    results: ResizeResults = client.call("resize_all", jpeg(400, 300), [likely, *others])
    ssims = [output.ssim for output in results.outputs]
    assert ssims[0] is not None
    assert 0.9 <= ssims[0] < 0.99
    assert ssims[1:] == [None, None]
    progressive, palette = (Image.open(io.BytesIO(output.data)) for output in results.outputs[1:])
    assert progressive.info["progressive"]
    assert (palette.mode, results.outputs[2].quality) == ("P", 40)
    assert client.call("resize", jpeg(400, 300), width=160, height=120, min_ssim=0.9).ssim >= 0.9


# Replies that do not add up


@pytest.mark.parametrize(
    ("outputs", "body", "said"),
    [
        (TOLD[:2], BODY[:15], "the request has 3 results and the server announced 2"),
        ((*TOLD, TOLD[0]), BODY + b"first", "the request has 3 results and the server announced 4"),
        (TOLD, BODY[:-1], "announced 17 bytes of results and sent 16"),
        (TOLD, BODY + b".", "announced 17 bytes of results and sent 18"),
        ((*TOLD[:2], {**TOLD[2], "size": 0}), BODY[:15], "an empty result for 4 x 3"),
        ((*TOLD[:2], {**TOLD[2], "size": -2}), BODY[:15], "is invalid"),
        ((*TOLD[:2], {**TOLD[2], "format": "../png"}), BODY, r"named '\.\./png' as the format"),
        ((*TOLD[:2], 3), BODY, "is invalid"),
    ],
    ids=str,
)
def test_inconsistent_results_are_a_protocol_error(
    make_client: MakeClient, serve: Serve, outputs: tuple[dict[str, Any], ...], body: bytes, said: str
) -> None:
    server = serve(answering(body, *outputs))
    client = make_client(port=server.port)
    with pytest.raises(ProtocolError, match=said):
        client.call("resize_all", b"image", ASKED)
    assert client.call("resize", b"image", **SIZE).data == b"image"
    assert server.connections == 1


def test_an_empty_result_is_a_protocol_error(make_client: MakeClient, serve: Serve) -> None:
    client = make_client(port=serve(answering(b"", {**TOLD[0], "size": 0})).port)
    with pytest.raises(ProtocolError, match="an empty result for 8 x 6"):
        client.call("resize", b"image", **SIZE)


def test_a_refusal_of_one_option_fails_the_whole_call(make_client: MakeClient, serve: Serve) -> None:
    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.refuse(head, BadRequest("lossless: a JPEG cannot be lossless"))
        every(peer)

    client = make_client(port=serve(script).port)
    with pytest.raises(BadRequest, match="lossless: a JPEG cannot be"):
        client.call("resize_all", b"image", ASKED)
    assert client.call("ping") > 0


# What is refused before anything is sent


@pytest.fixture
def unused(serve: Serve) -> FakeServer:
    """A server that fails the test if it gets a connection."""
    return serve()


@pytest.mark.parametrize(
    ("outputs", "error", "said"),
    [
        ([], ValueError, "outputs: must be one or more"),
        ([{"width": 8, "height": 6}], TypeError, "outputs: each must be a ResizeOptions, not dict"),
        ([PLAIN] * 4000, ValueError, f"outputs: .* of 4000 .* over the {MAX_META_SIZE}"),
    ],
    ids=["none", "a dict", "too many"],
)
def test_invalid_outputs(
    make_client: MakeClient, unused: FakeServer, outputs: list[Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        make_client(port=unused.port).call("resize_all", b"image", outputs)


def test_the_same_options_again_with_other_fields(make_client: MakeClient, serve: Serve) -> None:
    seen: list[dict[str, Any]] = []

    def script(peer: Peer) -> None:
        for _ in range(8):
            head, _ = peer.read_request()
            seen.append(head.meta)
            peer.reply(head, body=b"1", outputs=[{**TOLD[0], "size": 1}])

    client = make_client(port=serve(script).port)
    outputs, changing = (PLAIN,), [PLAIN]
    asked: tuple[dict[str, Any], ...] = (
        {},
        {},
        {"deadline_ms": 5000},
        {"deadline_ms": 5000},
        {"request_id": "a"},
        {},
    )
    for fields in asked:
        client.call("resize_all", b"image", outputs, **fields)
    client.call("resize_all", b"image", changing)
    changing[0] = replace(PLAIN, width=9)
    client.call("resize_all", b"image", changing)
    plain = PLAIN.to_meta()
    deadline = {**plain, "deadline_ms": 5000}
    assert seen[:6] == [plain, plain, deadline, deadline, {**plain, "request_id": "a"}, plain]
    assert [one["width"] for one in seen[6:]] == [8, 9]


def test_as_many_as_a_request_can_carry(make_client: MakeClient, serve: Serve) -> None:
    count = (MAX_META_SIZE - len('{"outputs":[]}') + 1) // len('{"width":8,"height":6},')
    told = [{**TOLD[0], "size": 1}]
    seen: list[int] = []

    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        seen.append(len(head.meta["outputs"]))
        peer.reply(head, body=b"1", outputs=told)

    client = make_client(port=serve(script).port)
    with pytest.raises(ProtocolError, match=f"the request has {count} results and the server announced 1"):
        client.call("resize_all", b"image", [PLAIN] * count)
    assert seen == [count]


@pytest.mark.parametrize(
    "ids", [{"request_id": ""}, {"request_id": "x" * 129}, {"request_id": 7}, {"traceparent": 7}]
)
def test_an_impossible_id_for_the_log(
    make_client: MakeClient, unused: FakeServer, ids: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(ids))}: must "):
        make_client(port=unused.port).call("resize", b"image", **SIZE, **ids)


@pytest.mark.parametrize("deadline_ms", [0, -1, 2**31, 1.5])
def test_an_invalid_deadline(make_client: MakeClient, unused: FakeServer, deadline_ms: object) -> None:
    with pytest.raises(ValueError, match=r"^deadline_ms: must be"):
        make_client(port=unused.port).call("resize_all", b"image", ASKED, deadline_ms=deadline_ms)


def test_resize_has_one_result(make_client: MakeClient, unused: FakeServer) -> None:
    with pytest.raises(ValueError, match="outputs: resize makes one result; use resize_all"):
        make_client(port=unused.port).call("resize", b"image", outputs=ASKED)


@pytest.mark.parametrize("option", ["upload", "colour"])
def test_an_unknown_option(make_client: MakeClient, unused: FakeServer, option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}: is not an option of RESIZE"):
        make_client(port=unused.port).call("resize", b"image", **SIZE, **{option: 1})
