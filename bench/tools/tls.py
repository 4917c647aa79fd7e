"""Measure what TLS costs the gateway: CPU time of an upload and of a handshake, beside plain connections.

    python -m bench.tools.tls [--rounds 15] [--requests 20] [--handshakes 100] [--engines]

One server has a plain listener and one with TLS, which take turns, so that both meet the same machine. The
figures are medians of the rounds; a difference is the median of the differences within the rounds.
``--engines`` compares engines of TLS that only receive the same upload (``bench.baselines.tls_engine``).
"""

import ssl
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from bench.baselines.tls_engine import ENGINES
from bench.images import image_file
from bench.measuring.processes import cpu_seconds
from bench.measuring.server import Server
from bench.wire import Connection
from vipsrv.protocol import Header, Kind

IMAGE = "jpeg-12mp.jpg"
"""2.7 MB."""

Measurement = Callable[[], float]
"""Returns CPU milliseconds of the gateway for each request or connection."""


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 15,
    requests: Annotated[int, typer.Option(min=1, help="Uploads of a round.")] = 20,
    handshakes: Annotated[int, typer.Option(min=1, help="Connections of a round.")] = 100,
    *,
    engines: Annotated[bool, typer.Option("--engines", help="Compare engines of TLS.")] = False,
) -> None:
    """Print the medians. Raises ``Refused`` and ``OSError`` if a request fails."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "vipsrv", "cert", "self-signed", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        if engines:
            compare_engines(Path(folder), rounds, requests)
        else:
            compare_listeners(Path(folder), rounds, requests, handshakes)


def compare_listeners(folder: Path, rounds: int, requests: int, handshakes: int) -> None:
    """Measure uploads and connections of a plain listener and of one with TLS."""
    context = trusting(folder)
    files = ["--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem")]
    listeners = ["--listen", "127.0.0.1:0", "--listen", "tls://127.0.0.1:0"]
    with Server(*listeners, *files, "--workers", "1", "--log-level", "error") as server:
        assert server.process.stdout is not None
        tls_port = int(server.process.stdout.readline().rpartition(":")[2])
        gateway = server.process.pid
        image = image_file(IMAGE).read_bytes()
        with Connection(server.port) as plain, Connection(tls_port, tls=context) as secured:
            print(f"{len(image) / 1e6:.1f} MB, CPU of the gateway for an upload and its result:")
            take_turns(
                {
                    "plain": lambda: cpu_of(gateway, requests, lambda: plain.resize(image)),
                    "TLS": lambda: cpu_of(gateway, requests, lambda: secured.resize(image)),
                },
                rounds,
            )
            session = secured.session

        def connect(*, tls: bool, resume: bool) -> None:
            with Connection(
                tls_port if tls else server.port,
                tls=context if tls else None,
                session=session if resume else None,
            ) as connection:
                connection.request(Kind.PING)
                assert connection.resumed is resume

        print("CPU of the gateway for a connection with one PING:")
        take_turns(
            {
                "plain": lambda: cpu_of(gateway, handshakes, lambda: connect(tls=False, resume=False)),
                "TLS, resumed": lambda: cpu_of(gateway, handshakes, lambda: connect(tls=True, resume=True)),
                "TLS, full": lambda: cpu_of(gateway, handshakes, lambda: connect(tls=True, resume=False)),
            },
            rounds,
        )


def compare_engines(folder: Path, rounds: int, requests: int) -> None:
    """Measure the same upload with each engine that is installed."""
    context = trusting(folder)
    image = image_file(IMAGE).read_bytes()
    files = [str(folder / "cert.pem"), str(folder / "key.pem")]
    engines = [name for name in ENGINES if name != "aiofastnet" or find_spec(name)]
    with ExitStack() as stack:
        turns: dict[str, Measurement] = {}
        for engine in engines:
            server = Server(engine, *files, module="bench.baselines.tls_engine")
            stack.callback(server.process.wait)
            stack.callback(server.process.kill)
            tls = None if engine == "plain" else context
            connection = stack.enter_context(Connection(server.port, tls=tls))
            turns[engine] = upload_turn(server.process.pid, connection, requests, image)
        print(f"{len(image) / 1e6:.1f} MB, CPU of a server that only receives:")
        take_turns(turns, rounds)


def upload_turn(pid: int, connection: Connection, requests: int, image: bytes) -> Measurement:
    """Return the measurement of one engine."""

    def upload() -> None:
        connection.send_bytes(Header(Kind.RESIZE, 0, 1, 0, len(image)).pack())
        connection.send_bytes(image)
        connection.receive_reply()

    return lambda: cpu_of(pid, requests, upload)


def trusting(folder: Path) -> ssl.SSLContext:
    """Return the context of a client that trusts the authority in ``folder``."""
    return ssl.create_default_context(cafile=str(folder / "ca.pem"))


def cpu_of(pid: int, times: int, do: Callable[[], object]) -> float:
    """Do something so many times; return the CPU milliseconds that a process has taken for each."""
    before = cpu_seconds(pid)
    for _ in range(times):
        do()
    return (cpu_seconds(pid) - before) / times * 1e3


def take_turns(turns: dict[str, Measurement], rounds: int) -> None:
    """Measure each in turn, and print the medians and the differences to the first."""
    measured: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name, measure in turns.items():
            value = measure()
            if number:  # the first round is a warm-up
                measured[name].append(value)
    first = next(iter(measured.values()))
    for name, values in measured.items():
        more = statistics.median(value - base for value, base in zip(values, first, strict=True))
        print(f"  {name:12} {statistics.median(values):.3f} ms, {more:+.3f} ms")


if __name__ == "__main__":
    typer.run(main)
