"""An HTTP client in a closed loop over one persistent connection."""

import http.client
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.measuring.process_group import member_number


def prepare(ports: Sequence[int], path: str, image: str | None) -> Callable[[], bytes]:
    """Return the function that gets this path, or posts the image to it.

    That function raises ``RuntimeError`` for any status but 200.
    """
    body = Path(image).read_bytes() if image else None
    connection = http.client.HTTPConnection("127.0.0.1", ports[member_number() % len(ports)], timeout=120)

    def ask() -> bytes:
        connection.request("POST" if body else "GET", path, body)
        response = connection.getresponse()
        result = response.read()
        if response.status != http.client.OK:
            raise RuntimeError(f"{response.status} {response.reason}: {result[:500]!r}")
        return result

    return ask
