"""Once for a process, before the first job: libvips set up, and every format tried out."""

from collections.abc import Collection
from dataclasses import dataclass

import pyvips

from vipsrv.errors import RequestError, StartFailed
from vipsrv.options import ResizeOptions
from vipsrv.pipeline import libvips, own, writers
from vipsrv.pipeline.resize import resize
from vipsrv.pipeline.upload import Upload
from vipsrv.version import __version__
from vipsrv.worker_config import WorkerConfig

LEAST_LIBVIPS = (8, 18)
"""The oldest that the tests pass with. Where the system's libvips has headers installed, pip builds pyvips
against that one, which then takes the place of the wheel's."""

_SIDE = 8
"""Pixels on each side of the picture that is tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatInfo:
    """A format that is read: its ``name``, and the ``library`` that reads it with its ``version``."""

    name: str
    library: str
    version: str


def start(formats: Collection[str] | None = None) -> tuple[FormatInfo, ...]:
    """Set libvips up; what is read, and by which library.

    ``formats`` names all that shall be read; ``None`` stands for every one that libvips does not mark as
    untrusted. A tiny picture of each format that can be written, too, goes through the whole pipeline:
    libvips loads and builds much at its first use only, and a format that fails is switched off.

    Raises ``StartFailed`` where libvips is too old; ``ValueError`` for a name that is unknown, or that this
    libvips has no reader for; ``RequestError`` or ``pyvips.Error`` where JPEG fails.
    """
    _check_version()
    _check_names(formats)
    libvips.configure(formats)
    own.configure(formats)
    writers.try_out()
    picture = pyvips.Image.black(_SIDE, _SIDE, bands=3).copy(interpretation="srgb")
    for reader in libvips.readers():
        if reader.saver is None or not pyvips.type_find("VipsForeignSave", reader.saver):
            continue
        try:
            _try(pyvips.Operation.call(reader.saver, picture, **reader.save_options))
        except (pyvips.Error, RequestError):
            if reader.format == "jpeg":
                raise
            if formats is None or not reader.by_trial:
                libvips.switch_off(reader)
    told = tuple(
        FormatInfo(name=reader.format, library=f"libvips {reader.operation}", version=libvips.version())
        for reader in libvips.readers()
    ) + tuple(
        FormatInfo(name=reader.format, library="vipsrv", version=__version__) for reader in own.readers()
    )
    missing = [name for name in formats or () if name not in {one.name for one in told}]
    if missing:
        raise ValueError(f"formats: this libvips {libvips.version()} does not read {', '.join(missing)}")
    return told


def _check_version() -> None:
    if not pyvips.at_least_libvips(*LEAST_LIBVIPS):
        least = ".".join(map(str, LEAST_LIBVIPS))
        raise StartFailed(
            f"libvips {libvips.version()} is too old: {least} or later is needed; "
            "'pip install --force-reinstall --no-deps pyvips-binary' brings one"
        )


def _check_names(formats: Collection[str] | None) -> None:
    known = (*libvips.FORMATS, *own.FORMATS)
    unknown = [name for name in formats or () if name not in known]
    if unknown:
        raise ValueError(f"formats: {', '.join(unknown)} is unknown; known are {', '.join(known)}")


def _try(data: bytes) -> None:
    options = ResizeOptions(width=_SIDE // 2, height=_SIDE // 2)
    resize(Upload.from_memory(data), (options,), config=WorkerConfig())
