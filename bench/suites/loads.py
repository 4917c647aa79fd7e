"""Loads for the suites: threads that send requests over bare sockets."""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, Protocol, Self

from bench.wire import Connection, resize_once

Version = Literal[1, 2]


@dataclass(frozen=True, slots=True)
class Answers:
    """The seconds of each request, from its first byte to the reply's last, and one result."""

    seconds: list[float]
    result: bytes


class Load(Protocol):
    """A closed loop of equal requests."""

    def run(self, requests: int) -> Answers:
        """Send so many requests. Raises ``Refused`` and ``OSError`` as soon as one fails."""
        ...


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """An image's bytes, and the size of the result in pixels."""

    image: bytes
    width: int
    height: int


class Connections:
    """``count`` clients, each with a persistent connection (version 2) or one connection a request (1)."""

    def __init__(self, port: int, request: ImageRequest, *, count: int = 1, version: Version = 2) -> None:
        self._stack = ExitStack()
        self._threads = self._stack.enter_context(ThreadPoolExecutor(count))
        self._asks: list[Callable[[], bytes]] = []
        for _ in range(count):
            if version == 1:
                self._asks.append(lambda: resize_once(port, request.image, request.width, request.height))
            else:
                connection = self._stack.enter_context(Connection(port))
                self._asks.append(_over(connection, request))

    def run(self, requests: int) -> Answers:
        """See ``Load``. The next request goes to any client that is free."""
        tickets: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(requests):
            tickets.put(None)
        results = [self._threads.submit(_work, one, tickets) for one in self._asks]
        answers = [result.result() for result in results]
        return Answers(
            [seconds for answer in answers for seconds in answer.seconds],
            next(answer.result for answer in answers if answer.seconds),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class Pipelined:
    """One connection of version 2 with up to ``in_flight`` requests in flight."""

    def __init__(self, port: int, request: ImageRequest, *, in_flight: int) -> None:
        self._request = request
        self._in_flight = in_flight
        self._connection = Connection(port)

    def run(self, requests: int) -> Answers:
        """See ``Load``. Because all requests are equal, replies are matched with requests in order."""
        room = threading.Semaphore(self._in_flight)
        sent: queue.SimpleQueue[float] = queue.SimpleQueue()

        def send() -> None:
            for _ in range(requests):
                room.acquire()
                sent.put(time.perf_counter())
                self._connection.send(self._request.image, self._request.width, self._request.height)

        seconds, result = [], b""
        with ThreadPoolExecutor(1) as threads:
            sending = threads.submit(send)
            for _ in range(requests):
                result = self._connection.receive()
                seconds.append(time.perf_counter() - sent.get())
                room.release()
            sending.result()
        return Answers(seconds, result)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def _over(connection: Connection, request: ImageRequest) -> Callable[[], bytes]:
    return lambda: connection.resize(request.image, request.width, request.height)


def _work(once: Callable[[], bytes], tickets: "queue.SimpleQueue[None]") -> Answers:
    seconds: list[float] = []
    result = b""
    while True:
        try:
            tickets.get_nowait()
        except queue.Empty:
            return Answers(seconds, result)
        started = time.perf_counter()
        result = once()
        seconds.append(time.perf_counter() - started)
