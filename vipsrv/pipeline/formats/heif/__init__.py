"""AVIF and HEIC, which libvips reads with one loader (libheif)."""

from vipsrv.options import Chroma, Format
from vipsrv.pipeline.formats import samples
from vipsrv.pipeline.formats.base import (
    DecodeCost,
    DecodeRequest,
    ImageFormat,
    LibvipsReader,
    Trial,
    signature,
    whole_image_pixel,
)
from vipsrv.pipeline.formats.heif.items import CodedPixels, coded_pixels
from vipsrv.pipeline.formats.heif.notes import read_notes
from vipsrv.pipeline.formats.writer import EncodeCost, EncoderEffort, Writer

_REFERENCES = 8
"""Frames that an AV1 decoder keeps for those after them."""


def _all_coded_pixels(request: DecodeRequest) -> int:
    return max(request.pixels, _coded_pixels(request).total)


def _coded_pixels(request: DecodeRequest) -> CodedPixels:
    film = request.header.notes.film
    if film is not None and (request.page or not film.has_still):
        # Counted as colour and alpha, like the parts of a still image.
        return CodedPixels(request.pixels * (2 if request.header.info.has_alpha else 1), request.pixels)
    return coded_pixels(request.upload, request.pixels)


def _decode_cost(request: DecodeRequest, seconds: float) -> DecodeCost:
    pixels = request.pixels
    coded = _coded_pixels(request)
    film = request.header.notes.film
    decoded = 1 if film is None else film.decoded(request.page)
    # The planes of one part; of several, one after another, also the image that they are copied into.
    held = coded.largest + (pixels / 2 if coded.total > coded.largest else 0)
    references = _REFERENCES * pixels * request.header.pixel_bytes if decoded > 1 else 0
    return DecodeCost(
        seconds=seconds,
        held=held * whole_image_pixel(request.header) + references,
        pixels=max(pixels, coded.total) * decoded,
    )


AVIF = ImageFormat(
    name="avif",
    order=60,
    # After the word ftyp: the file's own brand, its version, and the brands that it is compatible with.
    signatures=(
        signature("AVIF image sequence", rb"....ftypavis"),
        signature("AVIF", rb"....ftyp(.{4}){0,16}?avif"),
    ),
    reader=LibvipsReader(
        loader="heifload_source",
        family="VipsForeignLoadHeif",
        trial=Trial(saver="heifsave_buffer", options={"compression": "av1", "effort": 0}),
        shares_loader=True,
        read_notes=read_notes,
        decode_cost=lambda request: _decode_cost(request, 0.006),
        coded_pixels=_all_coded_pixels,
    ),
    writer=Writer(
        format=Format.AVIF,
        saver="heifsave_buffer",
        # docs/decisions/0037-avif-effort.md has the tables. The times are those of a gradient; a photo takes
        # longer, up to 25 times at effort 6. More than 6 gains nothing.
        options={"compression": "av1", "effort": 1},
        effort=EncoderEffort(
            argument="effort",
            values=(0, 1, 2, 3, 4, 5, 6, 6, 6, 6),
            times=(0.6, 1, 1.75, 2.5, 10, 14, 30, 30, 30, 30),
            lossless_default=3,
            lossless_times=(0.3, 0.4, 0.9, 1, 1.5, 1.5, 4, 4, 4, 4),
            memory=(0, 0, 0, 0, 20, 20, 20, 20, 20, 20),
        ),
        chroma={
            Chroma.AUTO: {},
            Chroma.HALF: {"subsample_mode": "on"},
            Chroma.FULL: {"subsample_mode": "off"},
        },
        lossy=True,
        lossless=True,
        alpha=True,
        max_side=16_384,  # what libvips 8.18 allows
        cost=EncodeCost(pixel=24, alpha=14, base=8 << 20, seconds=0.04),
        lossless_cost=EncodeCost(pixel=38, alpha=14, base=8 << 20, seconds=0.1),
    ),
)

HEIC = ImageFormat(
    name="heic",
    order=70,
    signatures=(signature("HEIC", rb"....ftyp(.{4}){0,16}?(hei[cxms]|hev[cxms]|mif1|msf1)"),),
    reader=LibvipsReader(
        loader="heifload_source",
        family="VipsForeignLoadHeif",
        sample=samples.HEIC,  # the libheif in the wheel has no decoder for HEVC
        shares_loader=True,
        read_notes=read_notes,
        decode_cost=lambda request: _decode_cost(request, 0.003),
        coded_pixels=_all_coded_pixels,
    ),
)

FORMATS = (AVIF, HEIC)
