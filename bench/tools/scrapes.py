"""What the metrics cost: counting each request, and ten scrapes of /metrics a second.

    python -m bench.tools.scrapes [--connections 8] [--seconds 3] [--rounds 9]

Three states take turns within one run, and the figures are medians of the differences within a round: a
server without an ops listener, one with it that nobody asks, and the same while it is scraped. A second
server without the listener, the control, shows how much two equal servers differ. The CPU time is that of the
gateway for each request. At the end the CPU time of one scrape is measured while the server has nothing else
to do: without load, it is exact.
"""

import statistics
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from http.client import HTTPConnection
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from typing import Annotated
from urllib.parse import urlsplit

import typer

from bench.arguments import known_image
from bench.images import image_file
from bench.measuring.processes import cpu_seconds
from bench.measuring.server import Server
from bench.tools.gateway import Round, measure_round

ALONE = 500
"""Scrapes of a server that has nothing else to do."""


def main(
    name: Annotated[
        str, typer.Option("--image", help="One of bench.images.", callback=known_image)
    ] = "jpeg-0.3mp.jpg",
    connections: Annotated[int, typer.Option(min=1)] = 8,
    seconds: Annotated[float, typer.Option(min=0.1, help="Duration of each round.")] = 3.0,
    rounds: Annotated[int, typer.Option(min=1)] = 9,
    rate: Annotated[float, typer.Option(min=0.1, help="Scrapes a second.")] = 10.0,
) -> None:
    """Print CPU time and throughput of the three states, and what they differ by.

    Raises ``Refused`` and ``OSError`` if a request fails.
    """
    image = image_file(name).read_bytes()
    with ExitStack() as stack:
        # No worker is replaced meanwhile.
        common = ("--workers", "2", "--gateways", "1", "--jobs-per-worker", "1000000")
        without = stack.enter_context(Server(*common, "--ops-listen", "off"))
        server = stack.enter_context(Server(*common, "--ops-listen", "127.0.0.1:0"))
        control = stack.enter_context(Server(*common, "--ops-listen", "off"))
        page = page_of(server)
        scraper = Scraper(page, rate)
        stack.callback(scraper.end)

        def measure(state: str) -> Round:
            if state in ("without", "control"):
                one = without if state == "without" else control
                return measure_round(one, image, 200, 150, connections, seconds)
            with scraper.on() if state == "scraped" else nullcontext():
                return measure_round(server, image, 200, 150, connections, seconds)

        states = ("without", "counting", "scraped", "control")
        measured: dict[str, list[Round]] = {state: [] for state in states}
        for number in range(rounds + 1):
            for state in states if number % 2 else states[::-1]:
                found = measure(state)
                if number:  # the first round is a warm-up
                    measured[state].append(found)
        scrape, size = cpu_of_a_scrape(server, page)
    print(f"one scrape ({size} bytes): {scrape * 1e3:.2f} ms of the gateway's CPU")
    print(f"{rate:g} scrapes a second: {scrape * rate:.2%} of one core, {scrape * rate / 2:.2%} of two")
    for state in states:
        gateway, worker, throughput = (
            statistics.median(column) for column in zip(*measured[state], strict=True)
        )
        print(
            f"{state:8} gateway {gateway * 1e3:.1f} us a request, workers {worker:.2f} ms, "
            f"{throughput:.0f} requests a second"
        )
    for one, other in (
        ("without", "control"),
        ("without", "counting"),
        ("control", "counting"),
        ("counting", "scraped"),
    ):
        pairs = list(zip(measured[one], measured[other], strict=True))
        cpu = statistics.median((after[0] - before[0]) * 1e3 for before, after in pairs)
        all_cpu = statistics.median(sum(after[:2]) / sum(before[:2]) - 1 for before, after in pairs)
        print(f"{one} → {other}: {cpu:+.1f} us a request in the gateway, {all_cpu:+.2%} of all CPU")


def page_of(server: Server) -> str:
    """Return the address of the metrics of a server, which prints it after that for its clients."""
    assert server.process.stdout is not None
    return server.process.stdout.readline().split()[-1].rstrip("/") + "/metrics"


def scrape(page: str) -> bytes:
    """Read the page once, over a new connection. Raises ``OSError``."""
    with urllib.request.urlopen(page, timeout=10) as reply:  # noqa: S310 - http only
        data: bytes = reply.read()
    return data


class Scraper:
    """A process that scrapes ``rate`` times a second over one connection, as Prometheus does, while it is
    ``on``. Another process, so that it does not hold up the clients of this one.
    """

    def __init__(self, page: str, rate: float) -> None:
        context = get_context("spawn")
        self._on = context.Event()
        self._process = context.Process(target=scrape_often, args=(page, rate, self._on), daemon=True)
        self._process.start()

    @contextmanager
    def on(self) -> Iterator[None]:
        """Scrape within the ``with``."""
        self._on.set()
        yield
        self._on.clear()

    def end(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()


def scrape_often(page: str, rate: float, on: Event) -> None:
    """Scrape while ``on`` is set, for ever."""
    address = urlsplit(page)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=10)
    due = 0.0
    while on.wait():
        due = max(due, time.monotonic()) + 1 / rate
        connection.request("GET", address.path)
        connection.getresponse().read()
        time.sleep(max(0.0, due - time.monotonic()))


def cpu_of_a_scrape(server: Server, page: str) -> tuple[float, int]:
    """Return the CPU seconds of one scrape, and the size of the page."""
    pid = server.process.pid
    began, before = time.monotonic(), cpu_seconds(pid)
    size = 0
    for _ in range(ALONE):
        size = len(scrape(page))
    took, taken = time.monotonic() - began, cpu_seconds(pid) - before
    before = cpu_seconds(pid)
    time.sleep(took)  # what the gateway does without scrapes
    return (taken - (cpu_seconds(pid) - before)) / ALONE, size


if __name__ == "__main__":
    typer.run(main)
