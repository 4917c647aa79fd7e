"""Set up the pipeline once in a process, before the first job: configure libvips and try every format."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pyvips

from vipsrv.errors import RequestError
from vipsrv.options import ResizeOptions
from vipsrv.pipeline.formats import registry
from vipsrv.pipeline.formats.base import LibvipsReader
from vipsrv.pipeline.output_format import try_writers
from vipsrv.pipeline.pixels import BANDS, pixels_within
from vipsrv.pipeline.resize import resize
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips import setup
from vipsrv.pipeline.watermarks import MAX_SIDE, use_watermarks
from vipsrv.version import __version__
from vipsrv.worker_config import WorkerConfig

_SIDE = 8
"""Pixels on each side of the image that is tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatInfo:
    """A format that is read: its ``name``, and the ``library`` that reads it with its ``version``."""

    name: str
    library: str
    version: str


def start(formats: Collection[str] | None = None) -> tuple[FormatInfo, ...]:
    """Set up libvips, and return the formats that are read.

    ``formats`` names those to be read; ``None`` means every format whose loader libvips trusts. A tiny
    image of each format, as far as there is one, goes through the whole pipeline, because libvips loads and
    builds many parts at their first use, which a confined worker cannot. A format that fails is switched off.

    Raises ``StartFailed`` if libvips is too old; ``ValueError`` for a name that is unknown, or that this
    libvips has no loader for; ``RequestError`` or ``pyvips.Error`` if JPEG fails.
    """
    setup.check_version()
    _check_names(formats)
    registry.activate(formats)
    try_writers()
    _try_readers()
    started = tuple(
        FormatInfo(
            name=format_.name,
            library=format_.reader.library,
            version=setup.version() if isinstance(format_.reader, LibvipsReader) else __version__,
        )
        for format_ in registry.active_formats()
        if format_.reader is not None
    )
    missing = [name for name in formats or () if name not in {one.name for one in started}]
    if missing:
        reasons = ", ".join(f"{name} ({_why_not_read(name)})" for name in missing)
        raise ValueError(f"formats: this libvips {setup.version()} does not read {reasons}")
    return started


def load_watermarks(files: Mapping[str, bytes], config: WorkerConfig) -> None:
    """Decode the images that ``watermark`` may name, with the limits of ``config``, after ``start``.

    Raises ``ValueError`` with the name of one that cannot be decoded.
    """
    images = {}
    for name, data in files.items():
        try:
            result = resize(Upload.from_memory(data), (), pixels=(pixels_within(MAX_SIDE),), config=config)
        except RequestError as error:
            raise ValueError(f"watermark: {name}: {error}") from None
        (output,) = result.pixels
        size = output.info.width, output.info.height
        image = pyvips.Image.new_from_memory(output.data, *size, BANDS, "uchar")
        images[name] = image.copy(interpretation="srgb")
    use_watermarks(images)


def _check_names(formats: Collection[str] | None) -> None:
    known = registry.readable_names()
    unknown = [name for name in formats or () if name not in known]
    if unknown:
        raise ValueError(f"formats: {', '.join(unknown)} is unknown; known are {', '.join(known)}")


def _why_not_read(name: str) -> str:
    reader = registry.format_named(name).reader
    if isinstance(reader, LibvipsReader) and setup.has_loader(reader.loader):
        # libheif, for example, is there for AVIF, but without the decoder of HEIC, which is HEVC.
        return "its loader is there, but cannot decode a test image"
    return "it has no loader for it"


def _try_readers() -> None:
    for format_ in registry.active_formats():
        reader = format_.reader
        if not isinstance(reader, LibvipsReader):
            continue
        try:
            sample = _sample(reader)
            if sample is not None:
                _resize(sample)
        except (pyvips.Error, RequestError):
            if format_.name == "jpeg":
                raise
            registry.deactivate(format_, reader)


def _sample(reader: LibvipsReader) -> bytes | None:
    """Return a tiny file that ``reader`` has to read. Raises ``pyvips.Error``."""
    if reader.sample is not None or reader.trial is None or not setup.has_saver(reader.trial.saver):
        return reader.sample
    image = pyvips.Image.black(_SIDE, _SIDE, bands=3).copy(interpretation="srgb")
    data: bytes = pyvips.Operation.call(reader.trial.saver, image, **reader.trial.options)
    return data


def _resize(data: bytes) -> None:
    options = ResizeOptions(width=_SIDE // 2, height=_SIDE // 2)
    resize(Upload.from_memory(data), (options,), config=WorkerConfig())
