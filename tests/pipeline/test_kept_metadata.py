"""Metadata: the resolution is not kept without being asked for, and no gain map is named that is not
there."""

import io
import re

import pytest
from PIL import Image

from tests.pipeline.run import run
from tests.support.images import encode, photo
from vipsrv.options import Format, Keep, ResizeOptions
from vipsrv.pipeline.steps.gain_map import without_gain_map

PACKET = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"%s dc:creator="A. Nyone">%s'
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)
BINDING = b' xmlns:g="http://ns.adobe.com/hdr-gain-map/1.0/"'
CONTAINER = (
    b' xmlns:C="http://ns.google.com/photos/1.0/container/"'
    b' xmlns:I="http://ns.google.com/photos/1.0/container/item/"'
)


@pytest.mark.parametrize("keep", [Keep.NONE, Keep.ICC])
@pytest.mark.parametrize("format_", list(Format))
def test_the_resolution_is_removed(format_: Format, keep: Keep) -> None:
    if format_ is Format.AUTO or format_.value == "jxl" or (format_ is Format.GIF and keep is Keep.ICC):
        return
    for source in (encode(photo(60, 40), kind, dpi=(300, 300)) for kind in ("JPEG", "PNG", "TIFF")):
        (output,) = run(source, ResizeOptions(width=30, height=20, format=format_, keep=keep)).outputs
        assert b"pHYs" not in output.data
        with Image.open(io.BytesIO(output.data)) as result:
            assert abs(float(result.info.get("dpi", (0, 0))[0]) - 300) > 1 or keep is not Keep.NONE
            result.load()


def test_the_resolution_is_kept_with_all_metadata() -> None:
    source = encode(photo(60, 40), "JPEG", dpi=(300, 300))
    (output,) = run(source, ResizeOptions(width=30, height=20, format=Format.PNG, keep=Keep.ALL)).outputs
    assert b"pHYs" in output.data


@pytest.mark.parametrize(
    ("attributes", "elements"),
    [
        (BINDING + b' g:Version="1.0" g:GainMapMax="2"', b""),
        (
            BINDING,
            b"<g:Version>1.0</g:Version><g:GainMapMax><rdf:Seq><rdf:li>2</rdf:li></rdf:Seq></g:GainMapMax>",
        ),
        (
            BINDING + CONTAINER,
            b'<C:Directory><rdf:Seq><C:Item I:Semantic="GainMap"/></rdf:Seq></C:Directory>',
        ),
        (
            b' xmlns:H="http://ns.apple.com/HDRGainMap/1.0/"',
            b"<H:HDRGainMapVersion>65536</H:HDRGainMapVersion>",
        ),
    ],
)
def test_a_gain_map_is_not_named(attributes: bytes, elements: bytes) -> None:
    packet = PACKET % (attributes, elements)
    cleaned = without_gain_map(packet)
    assert cleaned == PACKET % (b"", b"")
    source = encode(photo(60, 40), "JPEG", xmp=packet)
    for format_ in (Format.JPEG, Format.WEBP):  # that of a PNG is compressed
        options = ResizeOptions(width=30, height=20, format=format_, keep=Keep.ALL)
        (output,) = run(source, options).outputs
        assert not re.search(rb"gain-?map", output.data, re.IGNORECASE)
        assert b"A. Nyone" in output.data


def test_a_packet_that_cannot_be_cleaned_is_removed() -> None:
    for packet in (
        b"GainMap",
        PACKET % (BINDING, b"<g:Version>1.0"),
        PACKET % (BINDING, b"<g:V>" * 9000),
        PACKET % (b"", b"GainMap" + bytes(1 << 18)),
    ):
        assert without_gain_map(packet) is None
    assert without_gain_map(PACKET % (b"", b"")) == PACKET % (b"", b"")
