"""Clients of a service that never try anything again: version 1, and HTTP on one connection that is kept.

usage: traffic.py once IMAGES HTTP              one request of each; exit 1 if it fails
       traffic.py until-terminated IMAGES HTTP  one after another until SIGTERM; exit 1 if one has failed

IMAGES and HTTP are HOST:PORT. Nothing of vipsrv is imported, as in probe.py.
"""
# ruff: noqa: INP001, T201 -- a program beside a script, in no package; its output is what it saw

import http.client
import signal
import sys
import threading

from probe import TIMEOUT, jpeg_size, png, resize_v1

THREADS = 2
"""Of each kind."""

IMAGE = png(64, 48)
SIZE = (20, 10)


class Traffic:
    """Counts requests, and keeps what went wrong."""

    def __init__(self, images: str, http_address: str) -> None:
        self._images, self._http = images, http_address
        self._ending = threading.Event()
        self.done = 0
        self.failures: list[str] = []

    def version_1(self) -> None:
        """One request on a connection of its own. Raises ``OSError``, ``EOFError`` or ``ValueError``."""
        host, _, port = self._images.rpartition(":")
        self._check(resize_v1((host, int(port)), IMAGE, *SIZE))

    def over_http(self, connection: http.client.HTTPConnection) -> None:
        """One request of HTTP. Raises ``OSError``, ``HTTPException`` or ``ValueError``."""
        connection.request("POST", "/resize?width={}&height={}".format(*SIZE), IMAGE)
        response = connection.getresponse()
        body = response.read()
        if response.status != http.client.OK:
            raise ValueError(f"status {response.status}: {body[:200]!r}")
        self._check(body)

    def connect_http(self) -> http.client.HTTPConnection:
        """Return a connection that opens itself, and again when the server has said that it closes it."""
        return http.client.HTTPConnection(self._http, timeout=TIMEOUT)

    def run(self) -> None:
        """Send requests until ``end``."""
        kinds = (self._run_version_1, self._run_http)
        threads = [threading.Thread(target=kind) for kind in kinds for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def end(self, *_: object) -> None:
        """Finish the requests of now, and no more."""
        self._ending.set()

    def _run_version_1(self) -> None:
        while not self._ending.is_set():
            try:
                self.version_1()
            except (OSError, EOFError, ValueError) as error:
                self.failures.append(f"version 1: {error!r}")

    def _run_http(self) -> None:
        connection = self.connect_http()
        while not self._ending.is_set():
            try:
                self.over_http(connection)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failures.append(f"HTTP: {error!r}")
                connection.close()

    def _check(self, result: bytes) -> None:
        if jpeg_size(result) != SIZE:
            raise ValueError(f"a result of {jpeg_size(result)} instead of {SIZE}")
        self.done += 1


def main(arguments: list[str]) -> None:
    """Does what the usage above says."""
    match arguments:
        case ["once", images, http_address]:
            traffic = Traffic(images, http_address)
            traffic.version_1()
            traffic.over_http(traffic.connect_http())
        case ["until-terminated", images, http_address]:
            traffic = Traffic(images, http_address)
            signal.signal(signal.SIGTERM, traffic.end)
            traffic.run()
            print(f"{traffic.done} requests, {len(traffic.failures)} failed", *traffic.failures[:5], sep="\n")
            sys.exit(1 if traffic.failures else 0)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (EOFError, OSError, ValueError, http.client.HTTPException) as error:
        sys.exit(f"traffic.py: {error!r}")
