"""libvips, set up once for a process: what it may read and what it keeps; its errors made presentable.

libvips reads far more than pictures (CSV, its own raw files, …). All readers are switched off and those of
the list below on again; of these, too, none that libvips itself marks as untrusted.
"""

from dataclasses import dataclass

import pyvips
from pyvips import vips_lib


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A format that is read: its name, libvips' operation and family of classes, how a trial is written."""

    format: str
    loader: str
    family: str
    saver: str
    save_options: dict[str, object]


_READERS = (
    Reader(
        format="jpeg",
        loader="jpegload_source",
        family="VipsForeignLoadJpeg",
        saver="jpegsave_buffer",
        save_options={},
    ),
    Reader(
        format="png",
        loader="pngload_source",
        family="VipsForeignLoadPng",
        saver="pngsave_buffer",
        save_options={},
    ),
    Reader(
        format="webp",
        loader="webpload_source",
        family="VipsForeignLoadWebp",
        saver="webpsave_buffer",
        save_options={},
    ),
    Reader(
        format="tiff",
        loader="tiffload_source",
        family="VipsForeignLoadTiff",
        saver="tiffsave_buffer",
        save_options={},
    ),
    Reader(
        format="gif",
        loader="gifload_source",
        family="VipsForeignLoadNsgif",
        saver="gifsave_buffer",
        save_options={},
    ),
    Reader(
        format="avif",
        loader="heifload_source",
        family="VipsForeignLoadHeif",
        saver="heifsave_buffer",
        save_options={"compression": "av1", "effort": 0},
    ),
)

_JPEG = b"\xff\xd8\xff"

_by_loader_class: dict[str, Reader] = {}


def configure() -> None:
    """Cache off, all readers off, those of the list on as far as this libvips has them."""
    # pyvips hands each of libvips' notes on what it does to Python's logging, heard or not: 0.1 ms a request.
    # Without it GLib itself prints the warnings, on standard error, which a worker has closed.
    pyvips._remove_log_handler()  # noqa: SLF001
    pyvips.cache_set_max(0)  # the same operation never comes twice, and the cache would hold on to pictures
    pyvips.operation_block_set("VipsForeignLoad", True)
    for reader in _READERS:
        if pyvips.type_find("VipsForeignLoad", reader.loader):
            pyvips.operation_block_set(reader.family, False)
            _by_loader_class[f"{reader.family}Source"] = reader
    pyvips.block_untrusted_set(True)  # last, for the lines above allow whole families


def readers() -> tuple[Reader, ...]:
    """The readers that are on."""
    return tuple(_by_loader_class.values())


def switch_off(reader: Reader) -> None:
    """Read this format no more."""
    pyvips.operation_block_set(reader.family, True)
    del _by_loader_class[f"{reader.family}Source"]


def formats() -> tuple[str, ...]:
    """The names of the formats that are read."""
    return tuple(reader.format for reader in readers())


def version() -> str:
    """The version of libvips, as in ``8.18.7``."""
    return ".".join(str(pyvips.version(part)) for part in range(3))


def find_reader(source: pyvips.Source, head: bytes) -> Reader | None:
    """The reader for what a source begins like; ``head`` are its first bytes."""
    if head.startswith(_JPEG):
        # What most pictures are; asking every reader in turn takes 0.1 ms, as long as opening it.
        return _by_loader_class.get("VipsForeignLoadJpegSource")
    name = vips_lib.vips_foreign_find_load_source(source.pointer)
    if name == pyvips.ffi.NULL:
        forget_errors()
        return None
    return _by_loader_class.get(pyvips.ffi.string(name).decode())


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
