"""The fixtures of the suites: cases, servers, and the loops that they are compared with.

    python -m pytest bench [--quick | --corpus DIR] [--benchmark-json result.json]

``--quick`` takes less than three minutes on two cores, including the making of its images. With ``--corpus``
the claims about images are measured for every file of a folder instead; a file that the server refuses gives
a skipped row with the reason.
"""

import resource
from collections.abc import Iterator
from contextlib import ExitStack
from types import ModuleType

import pytest

from bench.measuring.server import Server
from bench.suites.cases import FULL, QUICK, Case, of_folder
from bench.suites.loops import BARE, WORKERS, CaseLoop, Loops
from bench.suites.measurement import Scale

CONNECTIONS = 3000
"""File descriptors that 1,000 idle connections and their server need, and some more."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a row for each image in every test that takes a ``case``."""
    if "case" not in metafunc.fixturenames:
        return
    folder = metafunc.config.getoption("--corpus")
    if folder is not None:
        try:
            cases = of_folder(folder)
        except NotADirectoryError as error:
            raise pytest.UsageError(str(error)) from None
    else:
        cases = list(QUICK if metafunc.config.getoption("--quick") else FULL)
    metafunc.parametrize("case", cases, ids=[case.id for case in cases])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the rows that the options exclude."""

    def wanted(item: pytest.Item) -> bool:
        if config.getoption("--corpus") is not None:
            return "case" in getattr(item, "fixturenames", ())
        return not (config.getoption("--quick") and item.get_closest_marker("full"))

    left_out = [item for item in items if not wanted(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if wanted(item)]


@pytest.fixture(scope="session")
def scale(request: pytest.FixtureRequest) -> Scale:
    """How much is measured for a row."""
    return (
        Scale(rounds=11, seconds=0.1)
        if request.config.getoption("--quick")
        else Scale(rounds=21, seconds=0.4)
    )


@pytest.fixture(scope="session")
def one_worker() -> Iterator[Server]:
    """A server with one worker, to measure the cost of a request."""
    with _server(1) as server:
        yield server


@pytest.fixture(scope="session")
def all_cores() -> Iterator[Server]:
    """A server with a worker a core, to measure throughput."""
    with _server(WORKERS) as server:
        yield server


@pytest.fixture(scope="module")
def loops() -> Iterator[Loops]:
    """A function that prepares a loop for a case: ``loops(case, BARE, processes=1)``.

    Loops with the same work and number of processes are reused, so preparing a case replaces the one before.
    Raises ``RuntimeError`` if libvips cannot read the image.
    """
    with ExitStack() as stack:
        started: dict[tuple[str, int], CaseLoop] = {}

        def start(case: Case, work: ModuleType = BARE, processes: int = 1) -> CaseLoop:
            key = (work.__name__, processes)
            if key not in started:
                started[key] = stack.enter_context(CaseLoop(work, processes))
            try:
                started[key].prepare(case)
            except RuntimeError:
                del started[key]  # the processes have ended
                raise
            return started[key]

        yield start


def _server(workers: int) -> Server:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < CONNECTIONS <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (CONNECTIONS, hard))
    return Server("--workers", str(workers), "--log-level", "warning", "--idle-timeout", "3600")
