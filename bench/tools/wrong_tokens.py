"""Measure what an address that guesses tokens leaves to another client.

    python -m bench.tools.wrong_tokens [--guesses 10000] [--rounds 5] [--workers 1] [--nice 19]

A client at 127.0.0.2 has a valid token and sends small images, each the next one as soon as it has the reply.
Each round has a phase with it alone and one in which a process at 127.0.0.9 sends wrong tokens, each on a
connection of its own, as fast as it can; which of them is first alternates. By default that process has the
lowest priority, because a real one would be on another machine. Prints the median latency of the client
relative to the phase alone, and how many of the guesses the server looked at (401) and refused at once (429).
Exits with 1 if the median of the ratios is over 1.2 or a request of the client was not answered.
"""

import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Annotated, Self

import typer

from bench.images import image_file
from bench.measuring.server import Server
from bench.wire import Connection
from vipsrv.protocol import FIRST_ERROR_STATUS, Kind
from vipsrv.server.identity import IdentityLimits
from vipsrv.server.identity.token_file import add_token
from vipsrv.server.identity.token_records import TokenRecord
from vipsrv.server.identity.tokens import hash_secret, new_token

GUESSER, CLIENT = "127.0.0.9", "127.0.0.2"
MOST_LATENCY = 1.2


def main(
    guesses: Annotated[int, typer.Option(min=1, help="Wrong tokens in all rounds together.")] = 10_000,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    workers: Annotated[int, typer.Option(min=1)] = 1,
    nice: Annotated[
        int, typer.Option(min=0, max=19, help="By how much the guesser gives way to others.")
    ] = 19,
) -> None:
    """Print the ratio of each round; exits with 1 if the median is over the limit."""
    image = image_file("jpeg-0.3mp.jpg").read_bytes()
    ratios: list[float] = []
    statuses: Counter[int] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder, "tokens.toml")
        token = _add_token(tokens)
        arguments = ("--workers", str(workers), "--log-level", "error", "--tokens", str(tokens))
        with Server(*arguments) as server, Connection(server.port, source=CLIENT) as client:
            if client.request(Kind.HELLO, {"token": token}).status >= FIRST_ERROR_STATUS:
                raise SystemExit("the server refused the client's token")
            _measure(client, image, _for_seconds(1.0))  # warm-up
            for number in range(rounds):
                took = 0.0
                alone = _measure(client, image, _for_seconds(3.0)) if number % 2 == 0 else 0.0
                with _Guesser(server.port, guesses // rounds, nice) as guesser:
                    started = time.monotonic()
                    beside = _measure(client, image, lambda: not guesser.is_done)
                    took = time.monotonic() - started
                statuses += guesser.statuses
                alone = alone or _measure(client, image, _for_seconds(took))
                ratios.append(beside / alone)
                print(
                    f"round {number + 1}: alone {alone * 1e3:.2f} ms; beside {guesses // rounds / took:.0f} "
                    f"guesses a second {beside * 1e3:.2f} ms; latency × {ratios[-1]:.2f}",
                    flush=True,
                )
    ratio = statistics.median(ratios)
    print(f"guesses: {statuses[401]} looked at, {statuses[429]} refused at once")
    print(f"median latency × {ratio:.2f} (at most {MOST_LATENCY})")
    raise typer.Exit(0 if ratio <= MOST_LATENCY else 1)


class _Guesser:
    """A process that sends ``count`` wrong tokens; ``statuses`` counts the replies when it is done."""

    def __init__(self, port: int, count: int, nice: int) -> None:
        self.statuses: Counter[int] = Counter()
        context = get_context("spawn")
        self._results, results = context.Pipe(duplex=False)
        self._process = context.Process(target=_guess, args=(port, count, nice, results))

    @property
    def is_done(self) -> bool:
        """Whether all tokens have been sent and answered."""
        return self._results.poll()

    def __enter__(self) -> Self:
        self._process.start()
        self._results.recv()  # it begins now
        return self

    def __exit__(self, *_: object) -> None:
        self.statuses = self._results.recv()
        self._process.join()


def _guess(port: int, count: int, nice: int, results: Pipe) -> None:
    os.nice(nice)
    results.send(None)
    statuses: Counter[int] = Counter()
    for _ in range(count):
        with Connection(port, source=GUESSER) as connection:
            statuses[connection.request(Kind.HELLO, {"token": new_token().text}).status] += 1
    results.send(statuses)


def _measure(client: Connection, image: bytes, goes_on: Callable[[], bool]) -> float:
    """Return the median seconds of a request. Raises ``Refused`` if one is not answered."""
    took = []
    while goes_on():
        started = time.monotonic()
        client.resize(image, 200, 150)
        took.append(time.monotonic() - started)
    return statistics.median(took)


def _for_seconds(seconds: float) -> Callable[[], bool]:
    ends_at = time.monotonic() + seconds
    return lambda: time.monotonic() < ends_at


def _add_token(path: Path) -> str:
    token = new_token()
    record = TokenRecord(
        id=token.id,
        name="bench",
        digest=hash_secret(token.secret),
        created=datetime.now(UTC).replace(microsecond=0),
        limits=IdentityLimits(),
    )
    add_token(path, lambda _present: record)
    return token.text


if __name__ == "__main__":
    typer.run(main)
