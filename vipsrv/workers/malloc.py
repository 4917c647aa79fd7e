"""What a worker's malloc holds on to when a heavy job is over, and how it gives that back."""

import ctypes
from collections.abc import Callable


def find_trim() -> Callable[[], None]:
    """A function that returns all free memory to the system, to be called when a heavy job is over.

    glibc keeps what lies between two pieces in use, for only the end of a heap is returned by itself: 80 to
    170 MB behind a giant TIFF or an AVIF, in each worker that ever had one. ``malloc_trim`` (man 3) returns
    whole pages wherever they are. Where the system has none (musl, macOS), the function does nothing.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return lambda: None
    trim.argtypes = [ctypes.c_size_t]
    trim.restype = ctypes.c_int
    return lambda: trim(0)
