"""Asking a server, wherever it turns out to be: the one that listens, or one started for the call."""

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

import typer

from vipsrv.address import UNIX_PREFIX
from vipsrv.client import Client, Timeout
from vipsrv.client.address import server_address
from vipsrv.client.embedded import EmbeddedServer
from vipsrv.client.sources import OnSent
from vipsrv.errors import ConnectFailed

LONG_UPLOAD = 8_000_000
"""Bytes from which a progress bar is shown."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answered(Generic[T]):
    """What a server said, the address of it, and whether it was one of our own."""

    answer: T
    server: str
    embedded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The server to ask; ``may_start_one`` lets one of our own stand in where nothing listens."""

    program: str
    host: str
    port: int
    protocol: Literal[1, 2]
    timeout: Timeout
    may_start_one: bool
    quiet: bool

    def ask(self, question: Callable[[Client], T]) -> Answered[T]:
        """Put a question to it. Raises what the client does."""
        there = str(server_address(self.host, self.port, _unix(self.host)))
        try:
            return Answered(self._ask_at(self.host, self.port, question), there, embedded=False)
        except ConnectFailed:
            if not self.may_start_one:
                raise
        with EmbeddedServer() as server:
            here = f"{server.host}:{server.port}"
            if not self.quiet:
                note = f"nothing listens on {there}, so a server of its own serves this call on {here}"
                typer.echo(f"{self.program}: {note}", err=True)
            return Answered(self._ask_at(server.host, server.port, question), here, embedded=True)

    def _ask_at(self, host: str, port: int, question: Callable[[Client], T]) -> T:
        with Client(host, port, address=_unix(host), protocol=self.protocol, timeout=self.timeout) as client:
            return question(client)


def _unix(host: str) -> str | None:
    return host if host.startswith(UNIX_PREFIX) else None


def check_picture(image: Path) -> None:
    """Refuse before a server is asked or started what is no file with something in it. Raises ``OSError``."""
    status = image.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(image))
    if not stat.S_ISREG(status.st_mode):
        text = "no regular file, so it cannot tell its size; save what it gives in one"
        raise OSError(errno.EINVAL, text, str(image))
    if not status.st_size:
        raise OSError(errno.EINVAL, "the file is empty", str(image))


@contextmanager
def upload_progress(image: Path, *, quiet: bool) -> Iterator[OnSent | None]:
    """A progress bar for a long upload on a terminal; otherwise nothing."""
    size = image.stat().st_size
    if quiet or size < LONG_UPLOAD or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    with ExitStack() as stack:
        shown = 0
        bar = None

        def on_sent(sent: int) -> None:
            nonlocal bar, shown
            if bar is None:  # only now is it certain that somebody takes it
                bar = stack.enter_context(
                    typer.progressbar(length=size, label=f"sending {image.name}", file=sys.stderr)
                )
            bar.update(sent - shown)
            shown = sent

        yield on_sent
