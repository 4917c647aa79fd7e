"""Compare the CPU time of a request over HTTP with that of the same request over the binary protocol.

    python -m bench.tools.http [--rounds 15] [--requests 60] [--workers 1]

One server listens for both. One connection of each takes turns, so that both meet the same machine and the
same workers. CPU is user and system time of all processes of the server, in ms a request; what HTTP adds is
the median of the differences of the rounds. One row has the body in chunks, and one in a form.
"""

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Annotated

import typer

from bench.http_wire import FORMS, HttpConnection
from bench.images import image_file
from bench.measuring.server import Server
from bench.tools.gateway import UPLOADS
from bench.wire import Connection


def cpu_of(server: Server, send: Callable[[], object], requests: int) -> float:
    """Return the milliseconds of CPU of a request."""
    before = sum(server.cpu_seconds())
    for _ in range(requests):
        send()
    return (sum(server.cpu_seconds()) - before) / requests * 1e3


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 15,
    requests: Annotated[int, typer.Option(min=1, help="Requests of each kind in a round.")] = 60,
    workers: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Print what each way to send an image over HTTP adds to a request, for each size of the image."""
    listeners = ("--listen", "127.0.0.1:0", "--listen", "http://127.0.0.1:0")
    with (
        Server("--workers", str(workers), "--log-level", "warning", *listeners) as server,
        ExitStack() as stack,
    ):
        binary = stack.enter_context(Connection(server.ports[0]))
        http = HttpConnection(server.ports[1])
        stack.callback(http.close)
        for name, (width, height) in UPLOADS.items():
            image = image_file(name).read_bytes()
            sides: dict[str, Callable[[], object]] = {
                "binary": partial(binary.resize, image, width, height),
                **{way: partial(http.request, make(image, width, height)) for way, make in FORMS.items()},
            }
            measured: dict[str, list[float]] = {way: [] for way in sides}
            for number in range(rounds + 1):
                order = list(sides) if number % 2 else list(reversed(sides))
                for way in order:
                    value = cpu_of(server, sides[way], requests)
                    if number:  # the first round is a warm-up
                        measured[way].append(value)
            base = measured.pop("binary")
            print(f"{name}, {len(image) / 1e6:.2f} MB: binary {statistics.median(base):.3f} ms")
            for way, values in measured.items():
                added = statistics.median(value - other for value, other in zip(values, base, strict=True))
                print(f"    {way:8} {statistics.median(values):.3f} ms, {added:+.3f} ms")


if __name__ == "__main__":
    typer.run(main)
