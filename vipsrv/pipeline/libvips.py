"""libvips, set up once for a process: what it may read and what it keeps; its errors made presentable.

libvips reads far more than pictures (CSV, its own raw files, …). All readers are switched off and those of
the list below on again: by default none that libvips itself marks as untrusted, but those that are named.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import pyvips
from pyvips import vips_lib

from vipsrv.pipeline.signatures import recognise

PROFILE = "icc-profile-data"
"""Under this name libvips keeps an embedded ICC profile."""

_UNTRUSTED = 16  # VIPS_OPERATION_UNTRUSTED of VipsOperationFlags


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A format that is read: its name, libvips' operation and family of classes, how a trial is written.

    ``signature`` is what ``recognise`` has to call it, where one loader reads several formats; ``by_trial``
    says that a loader is not enough, for it may lack the decoder that this format takes.
    """

    format: str
    loader: str
    family: str
    saver: str | None = None
    save_options: Mapping[str, object] = field(default_factory=dict)
    signature: str | None = None
    by_trial: bool = False

    @property
    def operation(self) -> str:
        """The loader as libvips' documentation calls it, such as ``jpegload``."""
        return self.loader.removesuffix("_source")


_READERS = (
    Reader(format="jpeg", loader="jpegload_source", family="VipsForeignLoadJpeg", saver="jpegsave_buffer"),
    Reader(format="png", loader="pngload_source", family="VipsForeignLoadPng", saver="pngsave_buffer"),
    Reader(format="webp", loader="webpload_source", family="VipsForeignLoadWebp", saver="webpsave_buffer"),
    Reader(format="tiff", loader="tiffload_source", family="VipsForeignLoadTiff", saver="tiffsave_buffer"),
    Reader(format="gif", loader="gifload_source", family="VipsForeignLoadNsgif", saver="gifsave_buffer"),
    Reader(
        format="avif",
        loader="heifload_source",
        family="VipsForeignLoadHeif",
        saver="heifsave_buffer",
        save_options={"compression": "av1", "effort": 0},
        signature="AVIF",
    ),
    # From here on those that the wheel's libvips lacks.
    Reader(
        format="heic",
        loader="heifload_source",
        family="VipsForeignLoadHeif",
        saver="heifsave_buffer",
        save_options={"compression": "hevc", "effort": 0},
        signature="HEIC",
        by_trial=True,
    ),
    Reader(format="jxl", loader="jxlload_source", family="VipsForeignLoadJxl", saver="jxlsave_buffer"),
    Reader(format="jp2", loader="jp2kload_source", family="VipsForeignLoadJp2k", saver="jp2ksave_buffer"),
    Reader(format="svg", loader="svgload_source", family="VipsForeignLoadSvg"),
    Reader(format="pdf", loader="pdfload_source", family="VipsForeignLoadPdf"),
    Reader(format="hdr", loader="radload_source", family="VipsForeignLoadRad"),
)

FORMATS = tuple(reader.format for reader in _READERS)
"""The names of all formats that some libvips reads for us."""

_JPEG = b"\xff\xd8\xff"

_on: list[Reader] = []


def configure(wanted: Collection[str] | None = None) -> None:
    """Cache off, all readers off, those of the list on as far as this libvips has them.

    ``wanted`` are the formats to read, ``None`` for all that libvips does not mark as untrusted.
    """
    # pyvips hands each of libvips' notes on what it does to Python's logging, heard or not: 0.1 ms a request.
    # Without it GLib itself prints the warnings, on standard error, which a worker has closed.
    pyvips._remove_log_handler()  # noqa: SLF001
    pyvips.cache_set_max(0)  # the same operation never comes twice, and the cache would hold on to pictures
    pyvips.operation_block_set("VipsForeignLoad", True)
    pyvips.block_untrusted_set(True)  # before the lines below, which may allow some again
    _on.clear()
    for reader in _READERS:
        if pyvips.type_find("VipsForeignLoad", reader.loader) and _is_wanted(reader, wanted):
            pyvips.operation_block_set(reader.family, False)
            _on.append(reader)


def _is_wanted(reader: Reader, wanted: Collection[str] | None) -> bool:
    if wanted is not None:
        return reader.format in wanted
    return not pyvips.Introspect.get(reader.loader).flags & _UNTRUSTED


def readers() -> tuple[Reader, ...]:
    """The readers that are on."""
    return tuple(_on)


def switch_off(reader: Reader) -> None:
    """Read this format no more."""
    _on.remove(reader)
    if all(other.family != reader.family for other in _on):
        pyvips.operation_block_set(reader.family, True)


def version() -> str:
    """The version of libvips, as in ``8.18.7``."""
    return ".".join(str(pyvips.version(part)) for part in range(3))


def find_reader(source: pyvips.Source, head: bytes) -> Reader | None:
    """The reader for what a source begins like; ``head`` are its first bytes."""
    if head.startswith(_JPEG):
        # What most pictures are; asking every reader in turn takes 0.1 ms, as long as opening it.
        return next((reader for reader in _on if reader.format == "jpeg"), None)
    found = vips_lib.vips_foreign_find_load_source(source.pointer)
    if found == pyvips.ffi.NULL:
        forget_errors()
        return None
    name = pyvips.ffi.string(found).decode()
    for reader in _on:
        # A family has loaders for files, buffers and sources, and some, such as PDF's, two implementations.
        if name.startswith(reader.family) and reader.signature in (None, recognise(head)):
            return reader
    return None


def forget_errors() -> None:
    """Empty libvips' error text: it is one for the process, and would bring one job's words to the next."""
    vips_lib.vips_error_clear()


def complaint() -> str | None:
    """What libvips has said since ``forget_errors``, if anything: it goes on after some errors."""
    text = pyvips.ffi.string(vips_lib.vips_error_buffer()).decode("utf-8", "replace")
    return _first_line(text) if text else None


def reason(error: pyvips.Error) -> str:
    """What a failed call says."""
    return _first_line(error.detail if isinstance(error.detail, str) else "") or _first_line(error.message)


def _first_line(text: str) -> str:
    """Short and printable, for libvips may quote from a hostile file."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return "".join(letter if " " <= letter <= "~" else "?" for letter in line)[:120]
