"""Clients that are at work while a test does something to the server: every request is accounted for."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from types import TracebackType
from typing import Self

from tests.support import bare_client
from tests.support.images import jpeg
from vipsrv.client import AsyncClient, Client, Retry
from vipsrv.errors import VipsrvError

_IMAGE = jpeg()


class Traffic:
    """``connections`` threads that send one request after another to a port until ``end``.

    They connect for each request (version 1), keep their connection as long as the server does (version 2),
    have always several requests in flight on it, and, with ``http_port``, keep a connection of HTTP: as many
    threads of each kind. Nothing is tried again. ``errors`` holds every request that got no result.
    """

    def __init__(self, port: int, *, connections: int, http_port: int | None = None) -> None:
        self.errors: list[str] = []
        self.done = 0
        self._port, self._http_port = port, http_port
        self._change = threading.Condition()
        self._ending = False
        kinds = [self._new_connections, self._one_client, self._several_in_flight]
        if http_port is not None:
            kinds.append(self._over_http)
        self._threads = [
            threading.Thread(target=self._run, args=(kinds[index % len(kinds)],))
            for index in range(connections)
        ]

    def wait_for_more(self, requests: int) -> None:
        """Wait until so many more requests are done, or one has failed."""
        with self._change:
            enough = self.done + requests
            assert self._change.wait_for(lambda: self.done >= enough or self.errors, bare_client.SECONDS)

    def end(self) -> None:
        """Wait until each thread has finished its request."""
        self._ending = True
        for thread in self._threads:
            thread.join(bare_client.SECONDS)
            assert not thread.is_alive()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def _run(self, work: Callable[[], None]) -> None:
        while not self._ending:
            try:
                work()
            except (OSError, AssertionError, HTTPException, VipsrvError) as error:
                self._note(f"{work.__name__}: {type(error).__name__}: {error}")

    def _note(self, error: str | None = None) -> None:
        with self._change:
            self.done += 1
            if error is not None:
                self.errors.append(error)
            self._change.notify_all()

    def _new_connections(self) -> None:
        assert len(bare_client.ask(self._port, _IMAGE, 20, 10).result) > 0
        self._note()

    def _one_client(self) -> None:
        with Client(port=self._port, retry=Retry.none()) as client:
            while not self._ending:
                assert client.resize(_IMAGE, width=20, height=10).data
                self._note()

    def _several_in_flight(self) -> None:
        asyncio.run(self._requests_at_once(3))

    async def _requests_at_once(self, number: int) -> None:
        async def one_after_another() -> None:
            while not self._ending:
                assert (await client.resize(_IMAGE, width=20, height=10)).data
                self._note()

        async with AsyncClient(port=self._port, retry=Retry.none()) as client:
            await asyncio.gather(*(one_after_another() for _ in range(number)))

    def _over_http(self) -> None:
        assert self._http_port is not None
        # It connects again if the last reply has announced the end of its connection.
        with closing(HTTPConnection("127.0.0.1", self._http_port, timeout=bare_client.SECONDS)) as connection:
            while not self._ending:
                connection.request("POST", "/resize?width=20&height=10", _IMAGE)
                response = connection.getresponse()
                assert (response.read()[:2], response.status) == (b"\xff\xd8", 200)
                self._note()
