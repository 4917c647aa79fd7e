"""Once for a process, before the first job: libvips set up, and every format tried out."""

import pyvips

from vipsrv.errors import RequestError
from vipsrv.options import ResizeOptions
from vipsrv.pipeline import libvips, writers
from vipsrv.pipeline.limits import Limits
from vipsrv.pipeline.resize import resize
from vipsrv.pipeline.upload import Upload

_SIDE = 8
"""Pixels on each side of the picture that is tried."""


def start() -> tuple[str, ...]:
    """Set libvips up; the names of the formats that it reads.

    A tiny picture of each format that can be written, too, goes through the whole pipeline: libvips loads and
    builds much at its first use only, and a format that fails is switched off. Raises ``RequestError`` or
    ``pyvips.Error`` where JPEG fails.
    """
    libvips.configure()
    writers.try_out()
    picture = pyvips.Image.black(_SIDE, _SIDE, bands=3).copy(interpretation="srgb")
    for reader in libvips.readers():
        if not pyvips.type_find("VipsForeignSave", reader.saver):
            continue
        try:
            _try(pyvips.Operation.call(reader.saver, picture, **reader.save_options))
        except (pyvips.Error, RequestError):
            if reader.format == "jpeg":
                raise
            libvips.switch_off(reader)
    return libvips.formats()


def _try(data: bytes) -> None:
    options = ResizeOptions(width=_SIDE // 2, height=_SIDE // 2)
    limits = Limits(max_pixels=_SIDE**2, max_output_pixels=_SIDE**2)
    resize(Upload.from_memory(data), (options,), limits=limits, quality=85)
