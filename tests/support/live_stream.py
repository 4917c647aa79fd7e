"""A server of the live figures that the test plays: it sends the events that the test puts into it."""

import json
import queue
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def live_event(**values: Any) -> dict[str, Any]:
    """The data of a ``live`` event; ``values`` replace its own."""
    percentiles = {"p50": 6.05, "p95": 17.0, "p99": 1234.0}
    known: dict[str, Any] = {
        "time": 1_700_000_100.0,
        "server": {
            "version": "9.8.7",
            "started": 1_700_000_000.0,
            "gateways": 1,
            "silent": [],
            "draining": False,
        },
        "columns": {
            "second": 1000,
            "ok": [1, 2, 3, 4, 5],
            "refused": [0, 0, 0, 0, 1],
            "failed": [0, 0, 0, 0, 0],
            "bytes_in": [1000, 2000, 3000, 4000, 2_500_000],
            "bytes_out": [100, 200, 300, 400, 500],
            "p50": [1.0, 1.0, 1.0, 1.0, 6.05],
            "p95": [1.0, 1.0, 1.0, 1.0, 17.0],
            "p99": [None, 1.0, 1.0, 1.0, 1234.0],
            "cores": [None, 0.0, 0.5, 0.25, 1.5],
            "waiting": [None, 0, 0, 2, 4],
        },
        "window": 10,
        "stages": {
            "receive": None,
            "queue": percentiles,
            "process": percentiles,
            "send": None,
            "total": percentiles,
        },
        "ratio": 8.25,
        "statuses": [
            {"status": 200, "code": "ok", "outcome": "ok", "count": 15},
            {"status": 429, "code": "busy", "outcome": "refused", "count": 1},
        ],
        "queue": {"light": 3, "heavy": 1, "limit": 100},
        "spool": {"memory": 5, "memory_limit": 10, "disk": 0, "disk_limit": 99},
        "connections": {"open": 12, "limit": 50},
        "wanted_workers": 1,
        "gateways": [{"pid": 400, "rss": 50_000_000, "cpu": 1.0, "at": 5000.0}],
        "workers": [
            {
                "gateway": 0,
                "pid": 4321,
                "state": "busy",
                "jobs": 77,
                "job": {"kind": "resize", "seconds": 1.25, "bytes": 2_000_000, "threads": 1, "heavy": True},
                "rss": 64_000_000,
                "cpu": 2.0,
                "at": 5000.0,
            }
        ],
    }
    return known | values


def errors_event(message: str) -> dict[str, Any]:
    """The data of an ``errors`` event with one error."""
    error = {
        "time": 1_700_000_099.0,
        "status": 429,
        "code": "busy",
        "outcome": "refused",
        "message": message,
        "kind": "resize",
        "connection": 1,
        "id": 2,
        "bytes": 100,
        "source": None,
        "worker": 0,
    }
    return {"seen": 1, "last": [error]}


def history_event() -> dict[str, Any]:
    """The data of a ``history`` event."""
    return live_event()["columns"]  # type: ignore[no-any-return]


class LiveStream:
    """Listens on a free loopback port, or on a unix socket; each client gets what was sent so far, then more.

    ``refusal`` is the answer to each request instead.
    """

    def __init__(self, *, path: Path | None = None, refusal: bytes | None = None) -> None:
        self._socket = socket.socket(socket.AF_INET if path is None else socket.AF_UNIX)
        self._socket.bind(("127.0.0.1", 0) if path is None else str(path))
        self._socket.listen()
        self.address = f"unix:{path}" if path else f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._refusal = refusal
        self._events: queue.Queue[bytes | None] = queue.Queue()
        self.served = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def send(self, name: str, data: dict[str, Any]) -> None:
        """Send an event to the client that reads."""
        self._events.put(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())

    def begin(self, message: str = "the queue is full") -> None:
        """Send what a watcher gets at first."""
        self.send("history", history_event())
        self.send("errors", errors_event(message))
        self.send("live", live_event())

    def hang_up(self) -> None:
        """End the stream of the client that reads."""
        self._events.put(None)

    def close(self) -> None:
        self.hang_up()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self.served += 1
            with client:
                while b"\r\n\r\n" not in client.recv(65536):
                    pass
                if self._refusal is not None:
                    client.sendall(self._refusal)
                    continue
                client.sendall(_HEAD + b"retry: 2000\n\n")
                while (event := self._events.get()) is not None:
                    try:
                        client.sendall(event)
                    except OSError:
                        break
