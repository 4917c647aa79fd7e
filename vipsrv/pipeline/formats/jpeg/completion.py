"""Complete a JPEG whose end marker is missing, if nothing else is.

libvips refuses such a file as truncated. Whether all rows are there shows in their pixels: they do not change
if other bytes follow the file. A progressive file that ends between two scans would pass that test, so all
coefficients must have been sent, too. Source: ITU-T T.81 (1992), annexes B and G.
"""

import numpy as np

from vipsrv.pipeline.formats.jpeg.segments import FRAME_HEADERS, LOSSLESS, START_OF_SCAN, markers
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.operations import PreparedOperation
from vipsrv.pipeline.vips.stopping import StopCheck, stop_while_computing

_ENDS_EARLY = "premature end of JPEG"
_MAX_SIZE = 64 << 20
"""Bytes of a file that is completed in memory."""

_FILL = 0xFF
_END = b"\xff\xd9"
_CODES = bytes(range(0xA5, 0xC5)), bytes(range(0x5A, 0x7A))
"""Two beginnings of coefficients, which begin with different bits, as most codes do."""

_RESTARTS = b"".join(bytes([_FILL, marker]) + _CODES[0] for marker in range(0xD0, 0xD8))
"""A file may end before a restart marker. What follows is read only if that is the expected one of the
eight."""

_FOLLOWING = (b"", *_CODES, _RESTARTS)
"""Bytes that may follow the file. Those after a restart marker are not read in a file that has none."""

_COEFFICIENTS = 64

_open = PreparedOperation("jpegload_source", "source", access="sequential", fail_on="error")


def completed(upload: Upload, text: str, watch: StopCheck | None) -> Upload | None:
    """Return the file with an end marker, if ``text`` says that it ends early, but its pixels do not;
    otherwise ``None``. Raises ``pyvips.Error``, also if ``watch`` stops it.
    """
    if _ENDS_EARLY not in text or upload.size > _MAX_SIZE or not _has_all_coefficients(upload):
        return None
    data = bytes(upload.view())
    if data[-1] == _FILL:
        data = data[:-1]  # the first half of the marker
    seen = None
    for following in _FOLLOWING:
        complete = Upload.from_memory(data + following + _END)
        image = _open(complete.source)
        if watch is not None:
            stop_while_computing(image, watch)
        # Sums over all pixels, so that none need to be kept.
        found = image.stats().numpy()
        if seen is not None and not np.array_equal(seen, found):
            return None
        seen = found
    return Upload.from_memory(data + _END)


def _has_all_coefficients(upload: Upload) -> bool:
    """Whether there is a scan of each component with all bits of each coefficient."""
    missing: dict[int, list[bool]] = {}
    for marker, position, length in markers(upload, upload.size):
        content = upload.read(position + 2, max(0, length - 2))
        if marker in FRAME_HEADERS and not missing:
            coefficients = 1 if marker in LOSSLESS else _COEFFICIENTS
            missing = {one: [True] * coefficients for one in content[6::3]}
        elif marker == START_OF_SCAN and content:
            count = content[0]
            first, last, bits = content[1 + 2 * count : 4 + 2 * count].ljust(3, b"\xff")
            for one in content[1 : 1 + 2 * count : 2]:
                left = missing.get(one, [])
                if len(left) == 1:
                    left[0] = False  # there ``first`` is the predictor
                elif not bits & 15:
                    left[first : last + 1] = [False] * len(left[first : last + 1])
    return bool(missing) and not any(any(left) for left in missing.values())
