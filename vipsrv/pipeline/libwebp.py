"""libwebp itself, where the system has it: decode a still WebP at any size, and encode small results.

The libwebp inside libvips' wheel is compiled for size; the one of a Linux distribution (Debian's package is
``libwebp7``) takes two thirds of its time for a decode and nine tenths for an encode, for the same pixels and
bytes (docs/decisions/0036-webp-and-png-rows.md). Without the library, libvips does the work.

Sources: ``src/webp/decode.h`` and ``src/webp/encode.h`` of libwebp 1.2 to 1.6, whose structures are the same.
"""

import ctypes
from functools import cache
from typing import Any, Final

import pyvips

from vipsrv.errors import CorruptImage, InternalError
from vipsrv.pipeline.orientation import Region

_LIBRARY: Final = "libwebp.so.7"
"""The name that the dynamic linker knows; 7 is the version of the interface, since 2018."""

_DECODER_ABI: Final = 0x0209
"""``WEBP_DECODER_ABI_VERSION`` of libwebp 1.2. The library refuses one that differs in the upper byte."""

_MODE_RGB, _MODE_RGBA = 0, 1
_RGB_BANDS, _RGBA_BANDS = 3, 4

_OK = 0
"""``VP8_STATUS_OK``."""


class _Features(ctypes.Structure):
    """``WebPBitstreamFeatures``."""

    _fields_ = (
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
        ("has_alpha", ctypes.c_int),
        ("has_animation", ctypes.c_int),
        ("format", ctypes.c_int),
        ("pad", ctypes.c_uint32 * 5),
    )


class _RGBABuffer(ctypes.Structure):
    """``WebPRGBABuffer``."""

    _fields_ = (("rgba", ctypes.c_void_p), ("stride", ctypes.c_int), ("size", ctypes.c_size_t))


class _YUVABuffer(ctypes.Structure):
    """``WebPYUVABuffer``; it is here only because it is the larger member of the union."""

    _fields_ = (
        ("planes", ctypes.c_void_p * 4),
        ("strides", ctypes.c_int * 4),
        ("sizes", ctypes.c_size_t * 4),
    )


class _Pixels(ctypes.Union):
    _fields_ = (("rgba", _RGBABuffer), ("yuva", _YUVABuffer))


class _Buffer(ctypes.Structure):
    """``WebPDecBuffer``."""

    _fields_ = (
        ("colorspace", ctypes.c_int),
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
        ("is_external_memory", ctypes.c_int),
        ("pixels", _Pixels),
        ("pad", ctypes.c_uint32 * 4),
        ("private_memory", ctypes.c_void_p),
    )


class _DecoderOptions(ctypes.Structure):
    """``WebPDecoderOptions``. All of them are off at first, threads included."""

    _fields_ = (
        ("bypass_filtering", ctypes.c_int),
        ("no_fancy_upsampling", ctypes.c_int),
        ("use_cropping", ctypes.c_int),
        ("crop", ctypes.c_int * 4),
        ("use_scaling", ctypes.c_int),
        ("scaled_width", ctypes.c_int),
        ("scaled_height", ctypes.c_int),
        ("use_threads", ctypes.c_int),
        ("dithering_strength", ctypes.c_int),
        ("flip", ctypes.c_int),
        ("alpha_dithering_strength", ctypes.c_int),
        ("pad", ctypes.c_uint32 * 5),
    )


class _DecoderConfig(ctypes.Structure):
    """``WebPDecoderConfig``."""

    _fields_ = (("input", _Features), ("output", _Buffer), ("options", _DecoderOptions))


def _load() -> Any:
    try:
        library = ctypes.CDLL(_LIBRARY)
        library.WebPInitDecoderConfigInternal.argtypes = [ctypes.POINTER(_DecoderConfig), ctypes.c_int]
        library.WebPGetFeaturesInternal.argtypes = [
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.POINTER(_Features),
            ctypes.c_int,
        ]
        library.WebPDecode.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(_DecoderConfig)]
        for encode in (library.WebPEncodeRGB, library.WebPEncodeRGBA):
            encode.argtypes = [
                ctypes.c_void_p,
                *[ctypes.c_int] * 3,
                ctypes.c_float,
                ctypes.POINTER(ctypes.c_void_p),
            ]
            encode.restype = ctypes.c_size_t
        library.WebPFree.argtypes = [ctypes.c_void_p]
        library.WebPFree.restype = None
    except (OSError, AttributeError):  # not installed, or without one of the functions
        return None
    return library


# Now, and not at the first use: a worker may open no file once it is confined.
_library = _load()


@cache
def is_available() -> bool:
    """Whether the system has a libwebp that fits."""
    return _library is not None and bool(
        _library.WebPInitDecoderConfigInternal(ctypes.byref(_DecoderConfig()), _DECODER_ABI)
    )


def decode(
    data: Any, stored: tuple[int, int], size: tuple[int, int], bands: int, part: Region | None = None
) -> pyvips.Image:
    """Decode the chunks of a still image of ``stored`` pixels to ``size`` pixels with 3 or 4 ``bands``.

    The image is in memory and has no metadata. With ``part``, whose left and top are even, only this part is
    decoded. A size other than that of what is decoded is reached by averaging areas during the decode.
    Raises ``CorruptImage``, also for an animation and for an image of another size.
    """
    (width, height), stride = size, size[0] * bands
    config = _DecoderConfig()
    _library.WebPInitDecoderConfigInternal(ctypes.byref(config), _DECODER_ABI)
    # The limits were checked with the size that libvips read, by another version of the library.
    features = config.input
    status = _library.WebPGetFeaturesInternal(_address(data), len(data), ctypes.byref(features), _DECODER_ABI)
    if status != _OK or (features.width, features.height) != stored:
        raise CorruptImage(f"this webp cannot be decoded: libwebp: unable to read its size (status {status})")
    pixels = bytearray(stride * height)
    output = config.output
    output.colorspace = _MODE_RGB if bands == _RGB_BANDS else _MODE_RGBA
    output.is_external_memory = 1
    output.pixels.rgba.rgba = _address(pixels)
    output.pixels.rgba.stride, output.pixels.rgba.size = stride, len(pixels)
    if part is not None:
        config.options.use_cropping = 1
        config.options.crop = tuple(part)
    if size != (stored if part is None else part[2:]):
        config.options.use_scaling = 1
        config.options.scaled_width, config.options.scaled_height = size
    status = _library.WebPDecode(_address(data), len(data), ctypes.byref(config))
    if status != _OK:
        raise CorruptImage(f"this webp cannot be decoded: libwebp: unable to read pixels (status {status})")
    image = pyvips.Image.new_from_memory(pixels, width, height, bands, "uchar")
    return image.copy(interpretation="srgb")


def encode(image: pyvips.Image, quality: int) -> bytes:
    """Encode an 8-bit image of 3 or 4 bands, with libwebp's defaults, which are those of libvips, too.

    Raises ``InternalError`` if the encoder fails, and ``pyvips.Error``, because the image is computed first.
    """
    width, height, bands = image.width, image.height, image.bands
    pixels = image.write_to_memory()
    function = _library.WebPEncodeRGB if bands == _RGB_BANDS else _library.WebPEncodeRGBA
    output = ctypes.c_void_p()
    size = function(_address(pixels), width, height, width * bands, quality, ctypes.byref(output))
    if not size:  # it has no memory
        raise InternalError("the result could not be written: libwebp: unable to encode the image")
    try:
        return ctypes.string_at(output, size)
    finally:
        _library.WebPFree(output)


def _address(buffer: Any) -> int:
    """The address of the first byte of a buffer, read-only or not; the buffer must outlive its use."""
    return int(pyvips.ffi.cast("uintptr_t", pyvips.ffi.from_buffer(buffer)))
