"""Settings and fixtures of the whole suite."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest
from hypothesis import settings
from xdist.remote import Producer

from tests.support.http_server import RunningHttpServer
from tests.support.one_process import OneProcess
from tests.support.running_server import WITHOUT_OPS, RunningServer

# For the servers that tests start as processes in other ways than by RunningServer.
os.environ.update(WITHOUT_OPS)

# The same examples in every run, on a slow machine too, and nothing kept from one run to the next.
settings.register_profile("vipsrv", max_examples=60, derandomize=True, deadline=None, database=None)
settings.load_profile("vipsrv")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneProcess | None:
    return OneProcess(config, log) if config.getoption("dist") == "load" else None


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what the commands remember of uploads and batches away from the user who runs the tests."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


class StartServer(Protocol):
    """Starts a server with these arguments of ``vipsrv serve``; it is ended with the test."""

    def __call__(self, *arguments: str) -> RunningServer: ...


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """One server with default settings for all tests that do not disturb it."""
    with RunningServer("--workers", "2") as running:
        yield running


@pytest.fixture(scope="session")
def http_server() -> Iterator[RunningHttpServer]:
    """The same for HTTP."""
    with RunningHttpServer("--workers", "2") as running:
        yield running


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """A factory of servers with settings of the test's own."""
    with ExitStack() as stack:

        def start(*arguments: str) -> RunningServer:
            return stack.enter_context(RunningServer(*arguments))

        yield start
