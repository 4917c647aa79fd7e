"""The image that is sent: bytes, a path or a binary file object, read piece by piece.

Nothing is loaded as a whole: what lies in memory is sent from there, what lies in a file is read while it is
sent. The protocol tells the size before the bytes, so a pipe, which cannot tell its size, is refused with a
``ValueError`` that says what to do rather than copied somewhere in silence.
"""

import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

PIECE_SIZE = 256 * 1024
"""Bytes that are read and sent at a time: between two of them is seen whether the request has been refused.
"""

OnSent = Callable[[int], None]
"""Called while an image is being sent with the bytes of it sent so far."""

ImageSource = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO
"""What may be sent. ``bytes`` are the image itself, a ``str`` is a path, and a file object is sent from where
it stands to its end.
"""


class Source:
    """An image of ``size`` bytes to be read in pieces, more than once if need be.

    ``file`` is the regular file behind it where there is one, for ``sendfile``, and ``start`` where in it the
    image begins.
    """

    def __init__(self, *, data: memoryview | None = None, stream: BinaryIO | None = None) -> None:
        if data is not None:
            self._data: memoryview | None = data
            self._stream: BinaryIO = io.BytesIO()
            self.start = 0
            self.size = len(data)
        elif stream is not None:
            self._data = None
            self._stream = stream
            self.start, self.size = _extent(stream)
        if not self.size:
            raise ValueError("the image is empty: 0 bytes")
        self._position = 0

    @property
    def in_memory(self) -> bool:
        """Whether reading a piece costs no I/O."""
        return self._data is not None

    @property
    def file(self) -> BinaryIO | None:
        """The regular file whose bytes are the image's, or ``None``, also where the system has no
        ``sendfile``.

        Only the types that are certain: a ``GzipFile``, say, has a descriptor too, of other bytes.
        """
        if not hasattr(os, "sendfile"):
            return None
        if type(self._stream) is io.FileIO:
            return self._stream
        if type(self._stream) is io.BufferedReader and type(self._stream.raw) is io.FileIO:
            return self._stream
        return None

    def rewind(self) -> None:
        """Start again from the first byte."""
        self._position = 0
        if self._data is None:
            self._stream.seek(self.start)

    def read(self, size: int) -> memoryview:
        """The next piece of at most ``size`` bytes; never more than ``self.size`` in all.

        Raises ``OSError`` where the file cannot be read or has become shorter meanwhile.
        """
        wanted = min(size, self.size - self._position)
        if self._data is not None:
            piece = self._data[self._position : self._position + wanted]
        else:
            piece = memoryview(self._stream.read(wanted))
            if wanted and not piece:
                raise shortened(self._position, self.size)
        self._position += len(piece)
        return piece


@contextmanager
def open_source(image: ImageSource) -> Iterator[Source]:
    """The source for an image; a file that is opened here is closed again.

    Raises ``OSError`` for a path that cannot be opened, ``ValueError`` for an empty image and for one that
    cannot tell its size, ``TypeError`` for what is no image source.
    """
    if isinstance(image, (bytes, bytearray, memoryview)):
        yield Source(data=memoryview(image).cast("B"))
    elif isinstance(image, (str, os.PathLike)):
        # Asked before it is opened: to open a named pipe is to wait for its other end.
        mode = os.stat(image).st_mode  # noqa: PTH116 - a str is as welcome as a Path
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise ValueError(
                f"{os.fspath(image)} is no regular file, so it cannot tell its size; read it into bytes"
            )
        # Unbuffered, for every read is a large one.
        with open(image, "rb", buffering=0) as file:  # noqa: PTH123
            yield Source(stream=file)
    else:
        yield Source(stream=_binary(image))


def shortened(sent: int, size: int) -> OSError:
    """The error for a file that ends before the size that it had at first."""
    return OSError(f"the image file became shorter while it was sent: {sent} of {size} bytes were there")


def _binary(stream: object) -> BinaryIO:
    if isinstance(stream, io.TextIOBase) or not hasattr(stream, "read"):
        raise TypeError(f"an image is bytes, a path or a binary file object, not {type(stream).__name__}")
    return cast(BinaryIO, stream)


def _extent(stream: BinaryIO) -> tuple[int, int]:
    try:
        start = stream.tell()
        end = stream.seek(0, os.SEEK_END)
        stream.seek(start)
    except (AttributeError, OSError):
        raise ValueError(
            "the file object is not seekable, so it cannot tell its size; pass bytes or a regular file"
        ) from None
    return start, max(0, end - start)
