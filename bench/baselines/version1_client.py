"""A client of version 1 in a closed loop: a connection for each request, as the protocol has it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from bench.crew import member_number
from bench.version1 import ask


def prepare(ports: Sequence[int], picture: str, width: int, height: int) -> Callable[[], bytes]:
    """What asks once for the picture of this path."""
    data = Path(picture).read_bytes()
    port = ports[member_number() % len(ports)]
    return lambda: ask(port, data, width, height)
