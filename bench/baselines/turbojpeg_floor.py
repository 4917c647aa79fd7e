"""The floor of the codecs by libjpeg-turbo's own library: the cost of JPEG without libvips.

The system's ``libturbojpeg`` is called with ctypes. It decodes straight into a buffer that is reused and
encodes with the settings of libvips: the accurate DCT, 4:2:0, no optimised tables.
"""

import ctypes
import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from bench.baselines import bare_loop
from bench.baselines.codec_floor import decode_scale
from bench.baselines.interface import Request
from bench.baselines.loop import Loop
from vipsrv.options import DEFAULT_QUALITY

_LIBRARY = "libturbojpeg.so.0"

# Of turbojpeg.h.
_TJPF_RGB = 0
_TJSAMP_420 = 2
_TJFLAG_NOREALLOC = 1024
_TJFLAG_ACCURATEDCT = 4096


class TurboJpegFloor(Loop):
    """The floor of libjpeg-turbo as a baseline, for JPEG only."""

    name = "turbojpeg-floor"
    what = "libjpeg-turbo's decode at the scale that is needed, and its encode, without libvips"
    work = __name__
    makes_result = False

    def missing(self) -> str | None:
        """See ``Baseline``."""
        try:
            _library()
        except OSError as error:
            return f"libjpeg-turbo's library cannot be loaded ({error}); Debian has it as libturbojpeg0"
        return None

    def version(self) -> str:
        """See ``Baseline``; this interface has no version number."""
        return f"the system's {_LIBRARY}"

    def serves(self, request: Request) -> bool:
        """See ``Baseline``."""
        return super().serves(request) and request.image.suffix == ".jpg"


def prepare(image: str, width: int, height: int) -> Callable[[], bytes]:
    """Return the function that decodes the image at this path and encodes an image of the target's size."""
    data = Path(image).read_bytes()
    with Image.open(io.BytesIO(data)) as source:
        scale = decode_scale(*source.size, width, height)
        columns, rows = (-(-side // scale) for side in source.size)
    with Image.open(io.BytesIO(bare_loop.prepare(image, width, height)())) as result:
        pixels = result.tobytes()
    library = _library()
    decoder, encoder = library.tjInitDecompress(), library.tjInitCompress()
    decoded = ctypes.create_string_buffer(columns * rows * 3)
    room = library.tjBufSize(width, height, _TJSAMP_420)
    encoded = ctypes.create_string_buffer(room)
    encoded_pointer, size = ctypes.c_void_p(ctypes.addressof(encoded)), ctypes.c_ulong()

    def make() -> bytes:
        _check(library.tjDecompress2(decoder, data, len(data), decoded, columns, 0, rows, _TJPF_RGB, 0))
        size.value = room
        _check(
            library.tjCompress2(
                encoder,
                pixels,
                width,
                0,
                height,
                _TJPF_RGB,
                ctypes.byref(encoded_pointer),
                ctypes.byref(size),
                _TJSAMP_420,
                DEFAULT_QUALITY,
                _TJFLAG_ACCURATEDCT | _TJFLAG_NOREALLOC,
            )
        )
        return ctypes.string_at(encoded, size.value)

    return make


def _check(code: int) -> None:
    if code:
        raise RuntimeError(_library().tjGetErrorStr2(None).decode())


@cache
def _library() -> Any:
    library = ctypes.CDLL(_LIBRARY)
    pointer, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_ulong
    library.tjInitDecompress.restype = library.tjInitCompress.restype = pointer
    library.tjInitDecompress.argtypes = library.tjInitCompress.argtypes = []
    library.tjGetErrorStr2.restype, library.tjGetErrorStr2.argtypes = ctypes.c_char_p, [pointer]
    library.tjBufSize.restype, library.tjBufSize.argtypes = size, [number, number, number]
    library.tjDecompress2.argtypes = [pointer, ctypes.c_char_p, size, pointer, *(number,) * 5]
    library.tjCompress2.argtypes = [
        *(pointer, ctypes.c_char_p, *(number,) * 4),
        *(ctypes.POINTER(pointer), ctypes.POINTER(size), *(number,) * 3),
    ]
    return library
