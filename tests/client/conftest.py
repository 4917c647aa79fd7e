"""The clients that the tests run against, and the servers that they talk to."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest

from tests.client.adapters import Adapter, AsyncAdapter, BlockingAdapter
from tests.client.fake_server import FakeServer, Script
from vipsrv.client import Retry


class MakeClient(Protocol):
    """Makes a client of the kind that is tested; it is closed with the test.

    It sends nothing again, unless ``retry`` is given.
    """

    def __call__(self, *arguments: Any, **options: Any) -> Adapter: ...


class Serve(Protocol):
    """Starts a fake server with these scripts; it is ended, and its errors raised, after the clients."""

    def __call__(self, *scripts: Script) -> FakeServer: ...


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(*scripts: Script) -> FakeServer:
            return stack.enter_context(FakeServer(*scripts))

        yield start


@pytest.fixture(params=["blocking", "asyncio", "uvloop"])
def make_client(request: pytest.FixtureRequest, serve: Serve) -> Iterator[MakeClient]:
    del serve  # asked for only so that the clients are closed before the servers that they talk to
    kind = request.param
    with ExitStack() as stack:

        def make(*arguments: Any, **options: Any) -> Adapter:
            adapter: Adapter
            options.setdefault("retry", Retry.none())
            if kind == "blocking":
                adapter = BlockingAdapter(*arguments, **options)
            elif kind == "asyncio":
                adapter = AsyncAdapter(asyncio.new_event_loop, *arguments, **options)
            else:
                uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")
                adapter = AsyncAdapter(uvloop.new_event_loop, *arguments, **options)
            stack.callback(adapter.end)
            return adapter

        yield make
