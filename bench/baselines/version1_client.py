"""A client of version 1 in a closed loop: a connection for each request, as the protocol has it."""

from collections.abc import Callable
from pathlib import Path

from bench.version1 import ask


def prepare(port: int, picture: str, width: int, height: int) -> Callable[[], bytes]:
    """What asks once for the picture of this path."""
    data = Path(picture).read_bytes()
    return lambda: ask(port, data, width, height)
