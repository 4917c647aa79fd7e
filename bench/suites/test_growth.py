"""Suite: how the cost of a request grows with what it is given. Rows are as in ``bench.suites.growth``.

Images are generated while they are sent, so that the largest takes neither memory nor disk of the client.
Each row has a server of its own, with limits high enough for its largest point, and goes from the smallest x
to the largest. ``--quick`` measures the small ends of the same axes.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, repeat

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.baselines.interface import all_cores
from bench.measuring.open_files import allow_open_files
from bench.measuring.process_group import confined_to
from bench.measuring.server import Server
from bench.suites.generated import Generated, jpeg, tiff
from bench.suites.growth import Ask, Effort, Point, Subject, measure, measure_in_turns, record
from bench.suites.loads import Connections, ImageRequest
from bench.wire import Connection, resize_head
from vipsrv.protocol import FIRST_ERROR_STATUS, Kind

WIDTH, HEIGHT = 160, 120
"""Of all results: small, so that the cost of a result hides little of what is measured."""
LIMITS = ("--max-upload", "4294967295", "--max-pixels", "2000000000", "--deadline", "600")
"""Limits of the server that hold the largest images."""
ADDRESSES = 10
"""Client addresses that many connections come from: no address may take most of the places."""
PLACES = 1.25
"""Places for connections over those that are used: an address gets more while some are free."""
EACH_ROUND = 100
"""The least requests of a round over many connections."""
TURNS = 9
"""Rounds of each number of connections, whose costs hardly differ."""
PER_WORKER = 4
"""Connections a worker, so that each has work."""


@dataclass(frozen=True, slots=True)
class Axes:
    """The points of each axis, and how much is measured at one.

    The largest upload is as much as a TIFF can hold.
    """

    connections: tuple[int, ...]
    upload_bytes: tuple[int, ...]
    pixels: tuple[int, ...]
    results: tuple[int, ...]
    effort: Effort


QUICK = Axes(
    (1, 100, 1000),
    (10**5, 10**6, 10**7, 3 * 10**7),
    (10**5, 10**6, 10**7),
    (1, 4, 16),
    Effort(3, 0.1),
)
FULL = Axes(
    (1, 10, 100, 1000, 10_000),
    (10**4, 10**5, 10**6, 10**7, 10**8, 10**9, 4 * 10**9),
    (10**5, 3 * 10**5, 10**6, 3 * 10**6, 10**7, 3 * 10**7, 10**8, 3 * 10**8, 10**9),
    (1, 2, 4, 8, 16),
    Effort(7, 0.5),
)


@pytest.fixture(scope="session")
def axes(request: pytest.FixtureRequest) -> Axes:
    """The points that are measured."""
    return QUICK if request.config.getoption("--quick") else FULL


def test_throughput_grows_with_the_cores(benchmark: BenchmarkFixture, axes: Axes) -> None:
    """A server confined to 1, 2, 4 … cores, with a worker on each: CPU a request stays as it is.

    The clients share the cores of the machine with the server, so the throughput by the clock grows by less
    on the last of them.
    """
    cores = all_cores()
    counts = [*_powers_of_two(below=len(cores)), len(cores)]
    if len(counts) == 1:
        pytest.skip("this process may use one core only")
    request = ImageRequest(b"".join(jpeg(2_000_000).pieces()), WIDTH, HEIGHT)

    def points() -> Iterator[Point]:
        for count in counts:
            at_once = PER_WORKER * count
            with (
                _server(count, cores=cores[:count]) as server,
                Connections(server.port, request, count=at_once) as load,
            ):
                yield measure(server, count, load.run, axes.effort, least=2 * at_once)

    record(benchmark, "cores", "cores", points)


def test_a_request_costs_the_same_on_any_number_of_connections(
    benchmark: BenchmarkFixture, axes: Axes
) -> None:
    """One request at a time, each on the next of all connections; the others are idle meanwhile.

    Each number of connections has a server of its own, and they are measured in turns: the costs differ by
    less than the speed of a shared machine does between two moments.
    """
    allow_open_files(2 * sum(axes.connections) + 500)
    image = b"".join(jpeg(20_000).pieces())

    def points() -> Iterator[Point]:
        with ExitStack() as stack:
            subjects = []
            for count in axes.connections:
                # The same for all: places take memory.
                places = str(round(axes.connections[-1] * PLACES))
                server = stack.enter_context(_server(1, "--connections", places))
                opened = [stack.enter_context(_connection(server, number)) for number in range(count)]
                subjects.append(Subject(count, server, _in_turn(opened, image), EACH_ROUND))
            effort = replace(axes.effort, rounds=TURNS)
            yield from measure_in_turns(subjects, effort)

    record(benchmark, "connections", "connections", points)


def test_an_upload_costs_in_proportion_to_its_size(benchmark: BenchmarkFixture, axes: Axes) -> None:
    """Uncompressed TIFFs, whose decoding costs little, and whose upload goes through a file above 8 MiB."""
    images = ((one.size / 1e6, one) for one in map(tiff, axes.upload_bytes))
    record(benchmark, "bytes of the upload", "MB", lambda: _one_by_one(images, axes.effort))


def test_decoding_costs_in_proportion_to_the_pixels(benchmark: BenchmarkFixture, axes: Axes) -> None:
    """Baseline JPEGs of about 1.6 bits a pixel."""
    images = ((one.pixels / 1e6, one) for one in map(jpeg, axes.pixels))
    record(benchmark, "pixels", "MP", lambda: _one_by_one(images, axes.effort))


def test_a_further_result_costs_less_than_a_request(benchmark: BenchmarkFixture, axes: Axes) -> None:
    """One 2 MP JPEG and 1 to 16 results, each a pixel wider than the last: they share the decode."""
    image = b"".join(jpeg(2_000_000).pieces())

    def ask(connection: Connection, results: int, requests: int) -> None:
        outputs = [{"width": WIDTH + number, "height": HEIGHT} for number in range(results)]
        for _ in range(requests):
            reply = connection.request(Kind.RESIZE, {"outputs": outputs}, image)
            assert reply.status < FIRST_ERROR_STATUS, reply.meta

    def points() -> Iterator[Point]:
        with _server(1) as server, Connection(server.port) as connection:
            for results in axes.results:
                yield measure(server, results, partial(ask, connection, results), axes.effort)

    record(benchmark, "results of a request", "results", points)


@contextmanager
def _server(workers: int, *further: str, cores: list[int] | None = None) -> Iterator[Server]:
    arguments = ("--workers", str(workers), "--log-level", "error", "--idle-timeout", "3600")
    with confined_to(cores or all_cores()):
        server = Server(*arguments, *LIMITS, *further)
    with server:
        yield server


def _connection(server: Server, number: int) -> Connection:
    """Open the connection of this number, which comes from one of some addresses, and ask on it once."""
    connection = Connection(server.port, source=f"127.0.0.{2 + number % ADDRESSES}")
    connection.request(Kind.PING)
    return connection


def _one_by_one(images: Iterable[tuple[float, Generated]], effort: Effort) -> Iterator[Point]:
    """Measure a request with each image, on one connection."""
    with _server(1) as server, Connection(server.port, timeout=600) as connection:
        for x, image in images:
            yield measure(server, x, _streamed(connection, image), effort)


def _streamed(connection: Connection, image: Generated) -> Ask:
    def ask(requests: int) -> None:
        for _ in range(requests):
            connection.send_bytes(resize_head(1, image.size, WIDTH, HEIGHT))
            for piece in image.pieces():
                connection.send_bytes(piece)
            connection.receive()

    return ask


def _in_turn(connections: list[Connection], image: bytes) -> Ask:
    """Ask on each connection once before on any of them again."""
    turns = chain.from_iterable(repeat(connections))

    def ask(requests: int) -> None:
        for _ in range(requests):
            next(turns).resize(image, WIDTH // 2, HEIGHT // 2)

    return ask


def _powers_of_two(*, below: int) -> Iterator[int]:
    power = 1
    while power < below:
        yield power
        power *= 2
