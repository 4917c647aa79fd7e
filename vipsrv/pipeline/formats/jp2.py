"""JPEG 2000, which is read if this libvips has a loader for it, and the memory that its tiles take.

The first marker segment (SIZ) states the sizes of the image and of its tiles. OpenJPEG makes a structure for
each tile and each of its components when it reads the header: 700 MB for 60,000 tiles of a file of 87 bytes.

Source: ISO/IEC 15444-1, A.5.1 (SIZ) and annex I (boxes).
"""

import struct

from vipsrv.errors import CorruptImage, TooLarge
from vipsrv.pipeline.formats import samples
from vipsrv.pipeline.formats.base import (
    DecodeCost,
    DecodeRequest,
    ImageFormat,
    LibvipsReader,
    signature,
    whole_image_pixel,
)
from vipsrv.pipeline.upload import Upload

_TILE, _TILE_COMPONENT = 9_000, 1_100
"""Bytes of OpenJPEG's structures, as measured with 2.5."""

_MAX_TILES_MEMORY = 128 << 20
"""Bytes: 10,900 tiles with three components, 0.1 s."""

_COMPONENT = 8
"""Bytes for each component of a pixel: OpenJPEG keeps each as an int, and libvips a copy of them. A JPEG 2000
may have 16,384 components."""

_CODESTREAM = b"\xff\x4f\xff\x51"  # SOC, and the marker of SIZ
_SIZ = struct.Struct(">4s4x8I H")
"""The two markers; end and origin of the image, size and origin of the tiles; number of components."""

_MAX_BOXES = 1_000
_LARGE, _TO_THE_END = 1, 0


def _check_tiles(upload: Upload) -> int:
    try:
        markers, *sizes, components = _SIZ.unpack(upload.read(_start(upload), _SIZ.size))
    except struct.error:
        raise CorruptImage("this JPEG 2000 ends within its header") from None
    width, height, _, _, tile_width, tile_height, left, top = sizes
    if markers != _CODESTREAM or not (tile_width and tile_height):
        raise CorruptImage("this JPEG 2000 does not state the size of its tiles")
    tiles: int = max(0, -(-(width - left) // tile_width)) * max(0, -(-(height - top) // tile_height))
    memory: int = tiles * (_TILE + _TILE_COMPONENT * components)
    if memory > _MAX_TILES_MEMORY:
        raise TooLarge(
            f"the image has {tiles} tiles of {components} components, which would take {memory} bytes "
            f"when its header is read; {_MAX_TILES_MEMORY} are allowed"
        )
    return memory


def _start(upload: Upload) -> int:
    """Return where the codestream begins: at once, or in the box that holds it."""
    if upload.head(4) == _CODESTREAM:
        return 0
    position = 0
    for _ in range(_MAX_BOXES):
        head = upload.read(position, 16)
        size, name = struct.unpack_from(">I4s", head)
        start = 8
        if size == _LARGE:
            (size,), start = struct.unpack_from(">Q", head, 8), 16
        elif size == _TO_THE_END:
            size = upload.size - position
        if name == b"jp2c":
            return position + start
        if size < start:
            break
        position += size
    raise CorruptImage("this JPEG 2000 has no codestream among its first boxes")


def _decode_cost(request: DecodeRequest) -> DecodeCost:
    header = request.header
    pixel = max(whole_image_pixel(header), _COMPONENT * header.shape.bands)
    return DecodeCost(seconds=0.013, held=request.pixels * pixel)


FORMATS = (
    ImageFormat(
        name="jp2",
        order=90,
        signatures=(signature("JPEG 2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),),
        reader=LibvipsReader(
            loader="jp2kload_source",
            family="VipsForeignLoadJp2k",
            sample=samples.JP2,
            check_metadata=_check_tiles,
            decode_cost=_decode_cost,
        ),
    ),
)
