"""The classes that describe a format. Each file of this folder describes one or a few formats.

An ``ImageFormat`` has a ``name``, its ``signatures``, and one or more of

- ``reader``: a ``LibvipsReader`` (a loader of libvips) or a ``BuiltinReader`` (code of vipsrv);
- ``writer``: how results of the format are written, and what they can hold (``writer.py``).

The hooks of a reader are functions with defaults, so a plain format takes a few lines. Everything that a hook
needs to know about a format belongs in the file of that format.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

import pyvips

from vipsrv.errors import RequestError, TooLarge
from vipsrv.pipeline.formats.writer import Writer
from vipsrv.pipeline.frames import Frames, open_roll
from vipsrv.pipeline.header import ImageHeader
from vipsrv.pipeline.notes import NOTHING, FileNotes
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.operations import PreparedOperation, shape
from vipsrv.pipeline.vips.stopping import StopCheck

MAX_SIDE = 1_500_000
"""Maximum pixels on a side of an image of a built-in format; real ones have fewer. If padding is not a whole
number of pixels, rows are read one byte per pixel; this bound keeps that width below libvips' 100,000,000
(``VIPS_MAX_COORD``)."""

MAX_DECODED_PIXELS = 1 << 25
"""Pixels of the largest compressed image that vipsrv itself decodes into memory: a little more than
7680 × 4320."""

MEGA = 1_000_000
SECONDS_PER_MEGABYTE = 0.0002
"""CPU seconds for a million bytes of decoded pixels, for formats that were not measured."""

SECONDS_PER_MEGABYTE_PARSED = 0.03
"""CPU seconds for a million bytes of a file that Python code reads one by one (run lengths, text)."""


# Recognition


@dataclass(frozen=True, slots=True)
class Signature:
    """The first bytes of a kind of file, and its name for messages. ``is_read`` is false for a variant of the
    format that its reader does not support.
    """

    name: str
    pattern: re.Pattern[bytes]
    is_read: bool = True


def signature(name: str, pattern: bytes, *, is_read: bool = True) -> Signature:
    """Make a signature; in ``pattern`` a dot stands for any byte."""
    return Signature(name, re.compile(pattern, re.DOTALL), is_read)


# Costs


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeRequest:
    """A page to be decoded, counted from 0. ``scale`` (0 to 1) limits how far the decoder itself may reduce
    the image: its output must not be smaller than this fraction of the image.
    """

    upload: Upload
    header: ImageHeader
    scale: float = 1.0
    page: int = 0

    @property
    def pixels(self) -> int:
        """Pixels of the page."""
        return self.header.info.width * self.header.info.height


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeCost:
    """The cost of a decoder: ``held`` bytes of memory besides the rows that stream, and ``seconds`` of CPU.

    ``seconds`` are per million bytes of decoded pixels, about half of the measured value, because other
    machines are faster. ``size`` is the width and height of the decoder's output, ``None`` for that of the
    page. ``pixels`` is the number of decoded pixels, ``None`` for that of the page. ``frames`` is the number
    of frames that are decoded to get the page, and ``parsing`` the seconds for reading the file in Python,
    both in the worst case.
    """

    seconds: float = SECONDS_PER_MEGABYTE
    held: float = 0.0
    size: tuple[float, float] | None = None
    pixels: int | None = None
    frames: int = 1
    parsing: float = 0.0


# Reading by libvips


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedFile:
    """An image that a loader opened, the size of the whole image, and the fraction at which it is decoded.

    ``whole_only``: the loader would decode this file wrongly at any other fraction.
    """

    image: pyvips.Image
    width: int
    height: int
    shrink: int = 1
    whole_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What is known of an 8-bit image without an ICC profile that libvips has not opened.

    This is its size as stored, its bands and colour space, its EXIF orientation (1 to 8), the bytes of memory
    that its metadata will take, and those fields of libvips that decide how it is decoded.
    """

    width: int
    height: int
    bands: int
    interpretation: str
    orientation: int
    metadata_memory: int
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedPage:
    """A page whose pixels a format's own code makes right. ``image`` is what is known before they are
    decoded; ``finish`` makes the right image of it when it is decoded, ``None`` if it is right. Its copy
    of the file takes ``memory`` bytes.
    """

    image: pyvips.Image
    has_alpha: bool
    pages: int = 1
    memory: int = 0
    finish: Callable[[pyvips.Image], pyvips.Image] | None = None


ShrinkFor = Callable[[int, int], int]
"""Width and height of a JPEG as stored → the fraction (1, 2, 4, 8) at which it will probably be decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The saver with which ``start`` writes a tiny file to find out whether a loader works."""

    saver: str
    options: Mapping[str, object] = field(default_factory=dict)


def _no_metadata(_upload: Upload) -> int:
    return 0


def _open_nothing(_upload: Upload, _page: int, _fail_on: str) -> OpenedPage | None:
    return None


def _check_no_decode(_request: DecodeRequest) -> None:
    pass


def _note_nothing(_upload: Upload) -> FileNotes:
    return NOTHING


def _is_shown(_upload: Upload, _image: pyvips.Image, _page: int, _fail_on: str) -> pyvips.Image | None:
    return None


def _explain_nothing(_upload: Upload, _text: str) -> None:
    return None


def _complete_nothing(_upload: Upload, _text: str, _watch: StopCheck | None) -> None:
    return None


def _page_pixels(request: DecodeRequest) -> int:
    return request.pixels


def whole_image_cost(request: DecodeRequest) -> DecodeCost:
    """Return the cost of a decoder that holds several copies of the whole image."""
    return DecodeCost(held=request.pixels * whole_image_pixel(request.header))


def whole_image_pixel(header: ImageHeader) -> int:
    """Return the bytes per pixel of a decoder that holds several copies of the whole image, as measured with
    AVIF: 15 for 8-bit 4:2:0, 20 for 4:4:4, 24 for 12 bits; 3 more with alpha.
    """
    is_deep = header.sample_bytes > 1
    return (24 if is_deep else 21) + (4 if header.info.has_alpha else 0)


@cache
def _prepared(loader: str, fail_on: str) -> PreparedOperation:
    return PreparedOperation(loader, "source", access="sequential", fail_on=fail_on)


def frames_of_roll(loader: str) -> Callable[[Upload, ImageHeader, int, int], Frames]:
    """Return what opens the frames of a format that ``loader`` of libvips reads as a roll."""
    return lambda upload, header, first, count: open_roll(
        loader, upload.source, header.fail_on, range(first, first + count)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LibvipsReader:
    """How libvips reads a format: the ``loader`` for sources and its ``family`` of classes.

    ``prefix``: a file with these first bytes is certainly of this format; set it only for very frequent
    formats. ``shares_loader``: the loader reads several formats, and the signature decides which one a file
    is. ``sample``: a small file of the format for the trial, where this libvips may read what it cannot
    write, or have a loader without the decoder for this format. ``decodes_whole``: ``thumbnail`` also decodes
    all of the image, and is no faster than a plain open. ``continues_after_errors``: libvips logs an error in
    the pixels and goes on with a blank area. ``by_signature``: the signature decides which files are of the
    format, because libvips looks at more of them and does not say what it dislikes.
    """

    loader: str
    family: str
    trial: Trial | None = None
    sample: bytes | None = None
    prefix: bytes | None = None
    shares_loader: bool = False
    decodes_whole: bool = False
    continues_after_errors: bool = False
    by_signature: bool = False

    error_beginnings: tuple[str, ...] = ()
    """How the texts of errors in the pixels begin, besides the name of the loader: none of a saver does."""

    check_metadata: Callable[[Upload], int] = _no_metadata
    """Before libvips opens the file: raise ``TooLarge`` if its header would take too long or too much memory
    to read; return the bytes of memory that its metadata will take."""

    read_facts: Callable[[Upload], ImageFacts | None] | None = None
    """Read the facts of a plain file, which libvips then opens only if it is needed; ``None`` if libvips must
    open it at once."""

    open_shrunk: Callable[[Upload, str, ShrinkFor], LoadedFile | None] | None = None
    """Open an upload (with ``fail_on``) as small as it will probably be decoded, which saves opening it
    again; ``None`` if it must be opened whole. Raises ``pyvips.Error``."""

    read_notes: Callable[[Upload], FileNotes] = _note_nothing
    """Before libvips opens the file: read what it does not tell or apply. Raises ``TooLarge``."""

    as_shown: Callable[[Upload, pyvips.Image, int, str], pyvips.Image | None] = _is_shown
    """Return a page (upload, opened image, page, ``fail_on``) as viewers show it, with the metadata of the
    opened image, from a copy of at most the whole file; ``None`` if the opened image is that. Raises
    ``pyvips.Error`` and ``TooLarge``.
    """

    open_page: Callable[[Upload, int, str], OpenedPage | None] = _open_nothing
    """Open a page (upload, page, ``fail_on``) that libvips would decode wrongly or not at all; ``None`` if
    libvips opens it. Raises ``pyvips.Error``, ``CorruptImage`` and ``UnsupportedFormat``."""

    open_alone: Callable[[Upload, int, str], OpenedPage | None] | None = None
    """Open a page (upload, page, ``fail_on``) without the other pages, after libvips logged an error that may
    be theirs; ``None`` if there are none. Raises ``pyvips.Error`` and ``UnsupportedFormat``."""

    not_read: tuple[str, ...] = ()
    """Parts of the texts of errors: not the file is broken, but this libvips cannot read it."""

    reopen: Callable[[Upload, ImageHeader, int, tuple[int, int]], pyvips.Image | None] | None = None
    """Open a page (upload, header, page, size) so that it takes less time to decode, with all its metadata,
    no smaller than the stored ``size`` that is needed; ``None`` if the image of the header serves as well.
    Raises ``pyvips.Error`` and ``CorruptImage``."""

    count_pages: Callable[[Upload], int] | None = None
    """Return the number of pages, if libvips does not know it: its loader then reads only the first one."""

    open_frames: Callable[[Upload, ImageHeader, int, int], Frames] | None = None
    """Open frames of an animation (upload, header, the first, how many); ``None`` if the pages of this format
    are no animation. Raises ``pyvips.Error``, ``CorruptImage`` and ``TooLarge``."""

    open_for_part: Callable[[Upload, ImageHeader, int], pyvips.Image | None] | None = None
    """Open a page (upload, header, page) so that taking a part of it decodes no more than that part; ``None``
    if the image of the header serves as well. Raises ``pyvips.Error``."""

    explain: Callable[[Upload, str], str | RequestError | None] = _explain_nothing
    """After libvips failed with this text: say what is wrong with the file, where the first line of the text
    does not say it, or return the error that is right; ``None`` if that line says it.
    """

    completed: Callable[[Upload, str, StopCheck | None], Upload | None] = _complete_nothing
    """After a decode failed with this text: return the file without the fault, if the fault changes no pixel;
    otherwise ``None``. Raises ``pyvips.Error``, also if the job must stop."""

    decode_cost: Callable[[DecodeRequest], DecodeCost] = whole_image_cost
    """Return the cost of decoding a page, or of each frame: the ``page`` of the request is the last one."""

    coded_pixels: Callable[[DecodeRequest], int] = _page_pixels
    """Return the number of pixels that are decoded to show the page. Raises ``CorruptImage``."""

    check_decode: Callable[[DecodeRequest], None] = _check_no_decode
    """Before pixels are decoded: raise ``TooLarge`` if that would take disproportionately long."""

    @property
    def library(self) -> str:
        """The reader of the format, for listings: the loader as libvips' documentation calls it."""
        return f"libvips {self.loader.removesuffix('_source')}"

    def open_whole(self, upload: Upload, fail_on: str) -> LoadedFile:
        """Open the first page of an upload at its full size. Raises ``pyvips.Error``."""
        image = _prepared(self.loader, fail_on)(upload.source)
        width, height, *_ = shape(image)
        return LoadedFile(image=image, width=width, height=height)


# Reading by vipsrv


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltinImage:
    """An image that a built-in reader found: ``width`` and ``height`` in pixels, and ``build``, which makes
    the upright image. It is called after the limits have been checked, and may raise ``CorruptImage`` and
    ``TooLarge``.

    ``is_bgr``: the three bands of the image are in the order blue, green, red. ``embedded``: the image of a
    container, opened already, and the name of its format; ``memory``: the bytes that opening it took.
    ``notes``: what the file of ``embedded`` states and libvips does not apply.
    """

    width: int
    height: int
    has_alpha: bool
    build: Callable[[], pyvips.Image]
    is_bgr: bool = False
    embedded: tuple[str, pyvips.Image] | None = None
    memory: int = 0
    notes: FileNotes = NOTHING


class OpenBuiltin(Protocol):
    """A function that reads the header of an upload."""

    def __call__(self, upload: Upload, *, tolerant: bool, watch: StopCheck | None) -> BuiltinImage:
        """Read the header. Raises ``CorruptImage``, ``UnsupportedFormat`` and ``TooLarge``."""
        ...


def streamed_rows_cost(_request: DecodeRequest) -> DecodeCost:
    """Return the cost of plain rows, which libvips reads from the file while it computes."""
    return DecodeCost()


def parsed_file_cost(request: DecodeRequest) -> DecodeCost:
    """Return the cost of a file that Python code decodes into memory, byte by byte."""
    return DecodeCost(
        held=request.pixels * request.header.pixel_bytes,
        parsing=request.upload.size / MEGA * SECONDS_PER_MEGABYTE_PARSED,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltinReader:
    """How vipsrv itself reads a format for which libvips has no loader that is safe for hostile files.

    ``recognises`` gets the upload and its first bytes. A format without a magic number sets ``has_magic`` to
    false: its ``recognises`` is called only for files that no other reader recognises. ``loader_family``: the
    loaders of libvips that decode a part of the file, and must not be blocked.
    """

    recognises: Callable[[Upload, bytes], object]
    open: OpenBuiltin
    has_magic: bool = True
    decode_cost: Callable[[DecodeRequest], DecodeCost] = streamed_rows_cost
    loader_family: str | None = None

    @property
    def library(self) -> str:
        """The reader of the format, for listings."""
        return "vipsrv"


def check_sides(name: str, width: int, height: int) -> None:
    """Raise ``TooLarge`` for an image that libvips cannot hold."""
    if max(width, height) > MAX_SIDE:
        raise TooLarge(f"this {name} is {width} x {height}; at most {MAX_SIDE} pixels on a side are allowed")


def check_decoded_pixels(kind: str, width: int, height: int) -> None:
    """Raise ``TooLarge`` for a compressed image of more pixels than vipsrv itself decodes into memory.

    ``kind`` says what it is, such as "run-length encoded tga".
    """
    if width * height > MAX_DECODED_PIXELS:
        raise TooLarge(
            f"this {kind} has {width * height} pixels ({width} x {height}); {MAX_DECODED_PIXELS} are allowed"
        )


# All together


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFormat:
    """Everything that is known about one format. ``order`` is its place in listings, and in the sequence in
    which signatures are tried.
    """

    name: str
    order: int
    signatures: tuple[Signature, ...] = ()
    reader: LibvipsReader | BuiltinReader | None = None
    writer: Writer | None = None
