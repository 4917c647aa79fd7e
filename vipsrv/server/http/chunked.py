"""Decodes a chunked body (RFC 9112, section 7.1): bytes in, pieces of content out, without any I/O.

::

    SIZE ── a size ──► DATA ── all of it ──► DATA_END ── CR LF ──► SIZE
      └── 0 ──► TRAILERS ── an empty line ──► FINISHED
"""

import re
from enum import StrEnum

from vipsrv.errors import BadRequest

MAX_LINE = 256
"""Bytes of the line with a chunk's size, its extensions included, and of a line of the trailers."""

MAX_TRAILERS = 4 * 1024
"""Bytes of all trailers, which are checked and discarded."""

FREE_OVERHEAD = 16 * 1024
"""Bytes that are not content and that any body may have. Beyond these, it may have 1 for each
``CONTENT_PER_OVERHEAD`` bytes of content: a chunk takes as much CPU time as some kilobytes."""

CONTENT_PER_OVERHEAD = 8

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
# Quoted strings without escapes: nobody sends extensions, and less can be misread.
_SIZE_LINE = re.compile(
    rb'0*+([0-9A-Fa-f]{0,15})(?:[\t ]*+;[\t ]*+%s(?:=(?:%s|"[\t !#-\[\]-~]*+"))?)*+\r\n' % (_TOKEN, _TOKEN)
)
_TRAILER = re.compile(rb"%s:[\t\x20-\x7e\x80-\xff]*+\r\n" % _TOKEN)


class ChunkState(StrEnum):  # not Enum, whose hash is a Python function
    """What the next bytes are; see the diagram above."""

    SIZE = "size"
    DATA = "data"
    DATA_END = "data end"
    TRAILERS = "trailers"
    FINISHED = "finished"


TRANSITIONS: dict[ChunkState, tuple[ChunkState, ...]] = {
    ChunkState.SIZE: (ChunkState.DATA, ChunkState.TRAILERS),
    ChunkState.DATA: (ChunkState.DATA_END,),
    ChunkState.DATA_END: (ChunkState.SIZE,),
    ChunkState.TRAILERS: (ChunkState.FINISHED,),
    ChunkState.FINISHED: (),
}
"""The states that may follow each state."""


class ChunkedDecoder:
    """Decodes one body."""

    __slots__ = ("_chunk_left", "_content", "_line", "_overhead", "_state", "_trailers")

    def __init__(self) -> None:
        self._state = ChunkState.SIZE
        self._chunk_left = 0
        self._line = b""  # the part of an incomplete line that has arrived
        self._content = 0
        self._overhead = 0
        self._trailers = 0

    @property
    def state(self) -> ChunkState:
        """The current state."""
        return self._state

    def wanted_of(self, data: memoryview) -> int:
        """How many of these bytes, the next ones, belong together: the rest of a chunk, or of a line."""
        if self._state is ChunkState.DATA:
            return min(self._chunk_left, len(data))
        end = bytes(data[: MAX_LINE + 1]).find(b"\n")
        return min(MAX_LINE + 1, len(data)) if end < 0 else end + 1

    def feed(self, data: memoryview) -> memoryview | None:
        """Take as many bytes as ``wanted_of`` told; return them if they are content.

        Raises ``BadRequest`` for anything that others could read differently.
        """
        if self._state is ChunkState.DATA:
            self._chunk_left -= len(data)
            self._content += len(data)
            if not self._chunk_left:
                self._enter(ChunkState.DATA_END)
            return data
        self._overhead += len(data)
        if self._overhead > FREE_OVERHEAD + self._content // CONTENT_PER_OVERHEAD:
            raise BadRequest("the chunks of the body are too small: send more bytes in each")
        line = self._line + bytes(data) if self._line else bytes(data)
        if not line.endswith(b"\n"):
            if len(line) > MAX_LINE:
                raise BadRequest(f"a line of the chunked body has more than {MAX_LINE} bytes")
            if self._state is ChunkState.DATA_END and line != b"\r":
                raise BadRequest("a chunk of the body is longer than its size says")
            self._line = line
            return None
        self._line = b""
        self._take_line(line)
        return None

    def _take_line(self, line: bytes) -> None:
        if self._state is ChunkState.DATA_END:
            if line != b"\r\n":
                raise BadRequest("a chunk of the body is longer than its size says")
            self._enter(ChunkState.SIZE)
        elif self._state is ChunkState.SIZE:
            size_line = _SIZE_LINE.fullmatch(line)
            if size_line is None or line[:1] in (b";", b"\t", b" ", b"\r"):
                raise BadRequest("the size of a chunk of the body is not valid")
            self._chunk_left = int(size_line[1] or b"0", 16)
            self._enter(ChunkState.DATA if self._chunk_left else ChunkState.TRAILERS)
        elif line == b"\r\n":
            self._enter(ChunkState.FINISHED)
        else:
            self._trailers += len(line)
            if self._trailers > MAX_TRAILERS or not _TRAILER.fullmatch(line):
                raise BadRequest("the trailers of the chunked body are too long or not valid")

    def _enter(self, state: ChunkState) -> None:
        if state not in TRANSITIONS[self._state]:
            raise RuntimeError(f"chunks: {state.value} cannot follow {self._state.value}")
        self._state = state
