"""Read the orientation in EXIF data that libvips does not see.

Source: CIPA DC-008 (EXIF 2.32), section 4.5 for the layout, 4.6.4 for the tag.
"""

import struct

PREFIX = b"Exif\0\0"
"""What precedes EXIF data in a JPEG and in libvips' field, but not in a PNG."""

_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_MAX_ENTRIES = 1000
_ORIENTATION, _SHORT = 0x0112, 3
_LAST_ORIENTATION = 8


def orientation_in(data: bytes) -> int:
    """Return the orientation (1–8) in the first directory of EXIF data; 1 if it is missing or invalid."""
    data = data.removeprefix(PREFIX)
    order = _BYTE_ORDERS.get(data[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        for number in range(min(count, _MAX_ENTRIES)):
            tag, kind, values, value = struct.unpack_from(order + "HHIH", data, start + 2 + 12 * number)
            if tag == _ORIENTATION:
                is_valid = (kind, values) == (_SHORT, 1) and 1 <= value <= _LAST_ORIENTATION
                return int(value) if is_valid else 1
    except struct.error:
        pass
    return 1
