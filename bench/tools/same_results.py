"""Compare the results of this tree with those of another checkout, byte for byte.

    python -m bench.tools.same_results OLD_CHECKOUT FOLDER [FOLDER …] [--except GLOB …] [--python PYTHON]

Starts ``vipsrv serve`` from both, sends every file of the folders to both with each of the requests in
``REQUESTS``, and compares the replies. Two replies are the same if both are results with the same bytes and
the same description (all of the meta but its timings), or errors with the same status and code; the wording
of an error may differ. Prints each difference and the counts, and exits with 1 if there is a difference.

The old server runs by ``--python`` or, without it, by ``OLD_CHECKOUT/.venv/bin/python`` if that exists, else
by the Python of this process; its code always comes from the checkout. ``--except`` leaves out files whose
path matches a pattern such as ``*.tga``.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.measuring.server import Server
from bench.wire import Connection, Refused, resize_once
from vipsrv.protocol import FIRST_ERROR_STATUS, Kind

WORKERS = 2
"""Workers of each of the two servers, and the number of files that are compared at a time."""

RETRIES = 3
"""How often a difference is checked again: a deadline or a killed worker may be due to a busy machine."""

DEADLINE_SECONDS = 300.0
"""The deadline of both servers, so long that a busy machine does not cause differences."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is compared of a reply: status and code of an error, else the description and the bytes."""

    status: int
    code: str
    description: str
    result: bytes

    def __str__(self) -> str:
        if self.code or self.status >= FIRST_ERROR_STATUS:
            return f"{self.status} {self.code}"
        return f"{self.status}, {len(self.result)} bytes {self.description}".rstrip()


Ask = Callable[["Client", bytes], Answer]


class Client:
    """A connection of version 2 to one of the servers; it is opened again after the server closed it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection: Connection | None = None

    def request(self, kind: Kind, meta: dict[str, Any], image: bytes) -> Answer:
        """Send a request of version 2. A connection that ends before the reply is an answer, too."""
        self._connection = self._connection or Connection(self.port, timeout=DEADLINE_SECONDS + 60)
        try:
            reply = self._connection.request(kind, meta, image)
        except ConnectionError as error:
            self.close()
            return Answer(0, f"connection lost ({type(error).__name__})", "", b"")
        meta = json.loads(reply.meta or b"{}")
        if reply.status >= FIRST_ERROR_STATUS:
            self.close()  # the server may close it, as it does where it did not read the image
            return Answer(reply.status, str(meta.get("code")), "", b"")
        meta.pop("ms", None)
        return Answer(reply.status, "", json.dumps(meta, sort_keys=True), bytes(reply.body))

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _resize(**options: Any) -> Ask:
    return lambda client, image: client.request(Kind.RESIZE, options, image)


def _info(client: Client, image: bytes) -> Answer:
    return client.request(Kind.INFO, {}, image)


def _version_1(client: Client, image: bytes) -> Answer:
    try:
        return Answer(200, "", "", resize_once(client.port, image, 160, 120))
    except Refused as error:
        return Answer(error.status, error.code, "", b"")
    except ConnectionError as error:
        return Answer(0, f"connection lost ({type(error).__name__})", "", b"")


_THREE_OUTPUTS = [
    {"width": 300, "fit": "inside"},
    {"width": 80, "height": 80, "fit": "cover", "format": "webp", "position": "attention"},
    {"width": 64, "height": 48, "format": "png", "keep": "icc"},
]

REQUESTS: dict[str, Ask] = {
    "fill jpeg": _resize(width=200, height=150),
    "cover webp": _resize(width=120, height=160, fit="cover", format="webp", position="entropy"),
    "contain png": _resize(width=150, height=150, fit="contain", format="png", background="#336699"),
    "inside auto": _resize(width=240, height=240, fit="inside", format="auto", enlarge=False),
    "keep all": _resize(width=400, height=300, fit="outside", keep="all", quality=60),
    "second page": _resize(width=100, height=100, page=1),
    "max bytes": _resize(width=320, height=240, max_bytes=6000),
    "three outputs": _resize(outputs=_THREE_OUTPUTS),
    "info": _info,
    "version 1": _version_1,
}
"""Every request that is sent for each file, by the name that is printed with a difference."""


def files_of(folders: Sequence[Path], excluded: Sequence[str]) -> Iterator[Path]:
    """The files below the folders, without the empty ones and those that match one of the patterns."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.stat().st_size and not any(path.match(one) for one in excluded):
                yield path


def compare(path: Path, clients: tuple[Client, Client], names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each request's name and how the answers of the two servers differ; empty if they do not."""
    image = path.read_bytes()
    for name in names:
        ask = REQUESTS[name]
        old, new = (ask(client, image) for client in clients)
        for _ in range(RETRIES):
            if old == new:
                break
            old, new = (ask(client, image) for client in clients)
        yield name, _difference(old, new)


def _difference(old: Answer, new: Answer) -> str:
    if old == new:
        return ""
    return f"old {old}; new {new}{'; the bytes differ' if str(old) == str(new) else ''}"


def old_python(checkout: Path, given: str | None) -> str:
    """The interpreter of the old server: as given, else the checkout's own, else that of this process."""
    own = checkout / ".venv" / "bin" / "python"
    return given or (str(own) if own.exists() else sys.executable)


def main(
    old_checkout: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="A checkout of the commit to compare with.")
    ],
    folders: Annotated[list[Path], typer.Argument(exists=True, file_okay=False, help="Folders of images.")],
    excluded: Annotated[
        list[str] | None, typer.Option("--except", metavar="GLOB", help="Leave out files that match.")
    ] = None,
    python: Annotated[
        str | None, typer.Option(help="Of the old server. [default: the checkout's .venv]")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--request", help=f"One of: {', '.join(REQUESTS)}. [default: all]")
    ] = None,
) -> None:
    """Print how many replies are the same and each one that is not; exits with 1 if there is one."""
    if unknown := set(only or ()) - set(REQUESTS):
        raise typer.BadParameter(f"{', '.join(unknown)} is unknown; known are {', '.join(REQUESTS)}")
    paths = list(files_of(folders, excluded or []))
    if not paths:
        raise typer.BadParameter("there is no file to compare")
    names = list(only or REQUESTS)
    settings = ("--workers", str(WORKERS), "--log-level", "error", "--deadline", str(DEADLINE_SECONDS))
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        checkout = old_checkout.resolve()
        old = stack.enter_context(Server(*settings, python=old_python(checkout, python), directory=checkout))
        new = stack.enter_context(Server(*settings))

        def one_file(path: Path) -> list[tuple[str, str]]:
            clients = Client(old.port), Client(new.port)
            try:
                return list(compare(path, clients, names))
            finally:
                for client in clients:
                    client.close()

        threads = stack.enter_context(ThreadPoolExecutor(WORKERS))
        for path, found in zip(paths, threads.map(one_file, paths), strict=True):
            for name, difference in found:
                counts["different" if difference else "same"] += 1
                if difference:
                    print(f"{path}: {name}: {difference}", flush=True)
    print(f"{len(paths)} files: {counts['same']} replies the same, {counts['different']} different")
    raise typer.Exit(1 if counts["different"] else 0)


if __name__ == "__main__":
    typer.run(main)
