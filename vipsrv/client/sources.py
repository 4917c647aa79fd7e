"""The image to send: bytes, a path or a binary file object, read piece by piece.

A file is never loaded as a whole; it is read while it is sent. The protocol sends the size before the bytes,
and a lost request is sent again. So a pipe or an HTTP response, whose size is unknown and which cannot be
rewound, is refused with a ``ValueError`` that names ``spool``.
"""

import io
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol, Self, cast

from vipsrv.errors import VipsrvError

PIECE_SIZE = 256 * 1024
"""Bytes that are read and sent at a time. After each piece the client checks whether it was refused."""

SPOOL_MEMORY = 8 * 2**20
"""Bytes that ``spool`` holds in memory; more go to a temporary file."""

DEFAULT_MAX_SPOOL = 2 * 2**30
"""Bytes that ``spool`` copies by default: the largest image that a server accepts by default."""

OnSent = Callable[[int], None]
"""Called while an image is being sent, with the number of its bytes sent so far."""


class Reader(Protocol):
    """A binary stream that can be read once, such as a pipe or an HTTP response."""

    def read(self, size: int, /) -> bytes:
        """Read at most ``size`` bytes; return ``b""`` at the end."""
        ...


class SeekableReader(Protocol):
    """A binary file object as far as a client needs one, such as an open file or a ``BytesIO``."""

    def read(self, size: int, /) -> bytes:
        """Read at most ``size`` bytes; return ``b""`` at the end."""
        ...

    def seek(self, offset: int, whence: int, /) -> int:
        """Move to an offset and return the new position."""
        ...

    def tell(self) -> int:
        """Return the current position."""
        ...


ImageSource = bytes | bytearray | memoryview | str | os.PathLike[str] | SeekableReader
"""An image to send: ``bytes`` are the image itself, a ``str`` is a path, and a file object is sent from its
current position to its end.
"""

_NO_STREAM: SeekableReader = io.BytesIO()  # of an image in memory


class CannotRewind(VipsrvError):
    """The file object of the caller does not give an image again. Only for use within the client."""


class Source:
    """An image of ``size`` bytes that is read in pieces, and again if it has to be sent again.

    ``start`` is the offset of the image in its file object. With ``owned`` that is closed at the end of the
    ``with`` block.
    """

    def __init__(
        self,
        *,
        data: memoryview | None = None,
        stream: SeekableReader | None = None,
        owned: io.FileIO | None = None,
    ) -> None:
        self._owned = owned
        if data is not None:
            self._data: memoryview | None = data
            self._stream: SeekableReader = _NO_STREAM
            self.start = 0
            self.size = len(data)
        elif stream is not None:
            self._data = None
            self._stream = stream
            self.start, self.size = _extent(stream)
        if not self.size:
            raise ValueError("the image is empty: 0 bytes")
        self._position = 0
        self._moved = False  # whether the file object may be elsewhere than at `start`

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._owned is not None:
            self._owned.close()

    def copy(self) -> "Source":
        """Return another source of the same image, which is in memory."""
        return Source(data=self._data)

    @property
    def unread(self) -> int:
        """The bytes from the current position to the end."""
        return self.size - self._position

    @property
    def in_memory(self) -> bool:
        """Whether the image is in memory, so that reading a piece needs no I/O."""
        return self._data is not None

    @property
    def file(self) -> io.FileIO | io.BufferedReader | None:
        """The regular file to use with ``sendfile``, or ``None`` if the image is not in one.

        Only types whose descriptor is known to hold the image's own bytes: that of a ``GzipFile``, for
        example, holds others. ``None`` on a system without ``sendfile``.
        """
        if not hasattr(os, "sendfile"):
            return None
        if type(self._stream) is io.FileIO:
            return self._stream
        if type(self._stream) is io.BufferedReader and type(self._stream.raw) is io.FileIO:
            return self._stream
        return None

    def move_to(self, offset: int) -> None:
        """Go to a byte of the image, for the next attempt. Raises ``CannotRewind``."""
        if self._data is None and (offset or self._moved):
            try:
                self._stream.seek(self.start + offset, os.SEEK_SET)
            except (OSError, ValueError) as error:  # ValueError: it has been closed
                raise CannotRewind(f"the image cannot be read again: {error}") from error
            self._moved = True
        self._position = offset

    def read(self, size: int) -> memoryview:
        """Read the next piece of at most ``size`` bytes, never beyond the size that the image had at first.

        Raises ``OSError`` if the file cannot be read or has become shorter.
        """
        wanted = min(size, self.size - self._position)
        self._moved = True
        if self._data is not None:
            piece = self._data[self._position : self._position + wanted]
        else:
            piece = memoryview(self._stream.read(wanted))
            if wanted and not piece:
                raise shortened(self._position, self.size)
        self._position += len(piece)
        return piece


def open_source(image: ImageSource) -> Source:
    """Return the source of an image, for a ``with`` block; a file that is opened here is closed at its end.

    Raises ``OSError`` for a path that cannot be opened, ``ValueError`` for an empty image and for one of
    unknown size, and ``TypeError`` for an object that is not an image source.
    """
    if isinstance(image, (bytes, bytearray, memoryview)):
        return Source(data=memoryview(image).cast("B"))
    if isinstance(image, (str, os.PathLike)):
        # Checked before it is opened: opening a named pipe waits for its other end.
        mode = os.stat(image).st_mode  # noqa: PTH116 - a str is also accepted
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise ValueError(
                f"{os.fspath(image)} is not a regular file, so its size is unknown; open it and pass "
                "vipsrv.spool(file)"
            )
        # Unbuffered, because every read is a large one.
        file = open(image, "rb", buffering=0)  # noqa: PTH123, SIM115 - closed by the source
        try:
            return Source(stream=file, owned=file)
        except BaseException:
            file.close()
            raise
    return Source(stream=_binary(image))


def spool(stream: Reader, *, max_size: int = DEFAULT_MAX_SPOOL) -> "tempfile.SpooledTemporaryFile[bytes]":
    """Copy a stream that cannot be rewound, so that it can be sent: an HTTP response, a pipe, standard input.

    The copy is in memory up to 8 MiB and otherwise in an unnamed temporary file, which is removed when the
    copy is closed. This blocks until the stream ends; in a coroutine use
    ``await asyncio.to_thread(spool, stream)``. Raises ``ValueError`` for more than ``max_size`` bytes, and
    what reading the stream raises.
    """
    with ExitStack() as stack:
        copy = stack.enter_context(tempfile.SpooledTemporaryFile(max_size=SPOOL_MEMORY))
        size = 0
        while piece := stream.read(PIECE_SIZE):
            size += len(piece)
            if size > max_size:
                raise ValueError(f"the stream has more than {max_size} bytes, which is max_size")
            copy.write(piece)
        copy.seek(0)
        stack.pop_all()  # the caller closes it
        return copy


def shortened(sent: int, size: int) -> OSError:
    """Return the error for a file that became shorter while it was sent."""
    return OSError(f"the image file became shorter while it was sent: it had only {sent} of {size} bytes")


def _binary(stream: object) -> SeekableReader:
    if isinstance(stream, io.TextIOBase) or not hasattr(stream, "read"):
        raise TypeError(f"an image is bytes, a path or a binary file object, not {type(stream).__name__}")
    return cast(SeekableReader, stream)


def _extent(stream: SeekableReader) -> tuple[int, int]:
    """Return the current position, and the number of bytes from there to the end."""
    try:
        start = stream.tell()
        end = stream.seek(0, os.SEEK_END)
        stream.seek(start, os.SEEK_SET)
    except (AttributeError, OSError):
        raise ValueError(
            "the file object is not seekable, so its size is unknown; pass vipsrv.spool(file), bytes or a "
            "regular file"
        ) from None
    return start, max(0, end - start)
