"""The formats that vipsrv reads itself: libvips has no reader for them, or none that it trusts."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from vipsrv.pipeline.bmp import open_bmp
from vipsrv.pipeline.ico import open_ico
from vipsrv.pipeline.opened import Opened
from vipsrv.pipeline.pnm import open_pnm
from vipsrv.pipeline.stopping import Watch
from vipsrv.pipeline.upload import Upload


class _Open(Protocol):
    def __call__(self, upload: Upload, *, tolerant: bool, watch: Watch | None) -> Opened: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnReader:
    """A format: its name, whether a file's first bytes are its own, and how its header is read."""

    format: str
    begins: Callable[[bytes], object]
    open: _Open


_READERS = (
    OwnReader(format="bmp", begins=re.compile(rb"BM").match, open=open_bmp),
    OwnReader(format="pnm", begins=re.compile(rb"P([1-6][\s#]|7\n)").match, open=open_pnm),
    # An icon or a cursor; one picture to 255.
    OwnReader(format="ico", begins=re.compile(rb"\0\0[\x01\x02]\0[^\0]\0").match, open=open_ico),
)

FORMATS = tuple(reader.format for reader in _READERS)
"""The names of all of them."""

_on: list[OwnReader] = []


def configure(wanted: Collection[str] | None = None) -> None:
    """Which of them are on; ``None`` for all."""
    _on[:] = [reader for reader in _READERS if wanted is None or reader.format in wanted]


def readers() -> tuple[OwnReader, ...]:
    """The readers that are on."""
    return tuple(_on)


def find_reader(head: bytes) -> OwnReader | None:
    """The reader for what a file with these first bytes is."""
    return next((reader for reader in _on if reader.begins(head)), None)
