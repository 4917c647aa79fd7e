"""A client of the benchmarks that always fails."""

from collections.abc import Callable
from typing import Any


def prepare(**_: Any) -> Callable[[], bytes]:
    """Return a function that raises."""

    def ask() -> bytes:
        raise ConnectionError("the server went away")

    return ask
