"""Say why libjpeg does not read a JPEG.

libjpeg logs warnings and goes on, so the reason is in the last line of libvips' text and not in the first.
Source: ITU-T T.81 (1992), table B.1 for the kinds of frames.
"""

import re

from vipsrv.errors import UnsupportedFormat
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.errors import printable

_PREFIX = "VipsJpeg: "
_PRECISION = re.compile(r"Unsupported JPEG data precision (\d+)")
_FRAME = re.compile(r"Unsupported JPEG process: SOF type 0x([0-9a-f]{2})")
_UNSUPPORTED = re.compile(r"not supported|not implemented|Unsupported (?!marker)")
_FRAMES = {
    0xC3: "is lossless",
    0xC5: "is hierarchical",
    0xC6: "is hierarchical",
    0xC7: "is hierarchical and lossless",
    0xC9: "is coded arithmetically",
    0xCA: "is coded arithmetically",
    0xCB: "is lossless and coded arithmetically",
    0xCD: "is hierarchical and coded arithmetically",
    0xCE: "is hierarchical and coded arithmetically",
    0xCF: "is hierarchical, lossless and coded arithmetically",
}


def explain(_upload: Upload, text: str) -> str | UnsupportedFormat | None:
    """Return the reason in libvips' ``text``, or the error for a kind of JPEG that libjpeg does not read."""
    lines = [line.strip().removeprefix(_PREFIX) for line in text.splitlines() if _PREFIX in line]
    if not lines:
        return None
    last = printable(lines[-1])
    precision, frame = _PRECISION.search(last), _FRAME.search(last)
    what = None
    if precision is not None:
        what = f"has {precision[1]} bits a sample"
    elif frame is not None:
        what = _FRAMES.get(int(frame[1], 16), f"has frames of the kind {frame[1]}")
    elif _UNSUPPORTED.search(last):
        what = f"cannot be read by libjpeg ({last})"
    return last if what is None else UnsupportedFormat(f"this jpeg {what}, which vipsrv does not read")
