"""Return memory to the system that malloc keeps after a heavy job."""

import ctypes
from collections.abc import Callable


def find_trim() -> Callable[[], None]:
    """Find the function that returns all free memory to the system. Call that after a heavy job.

    Without it, glibc returns only the end of a heap and keeps free memory between pieces in use: 80 to 170 MB
    after a giant TIFF or an AVIF, in each worker that ever had one. ``malloc_trim`` (man 3) returns whole
    pages wherever they are. On systems without ``malloc_trim`` (musl, macOS), the function does nothing.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return lambda: None
    trim.argtypes = [ctypes.c_size_t]
    trim.restype = ctypes.c_int
    return lambda: trim(0)
