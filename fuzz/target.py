"""The class of a fuzz target."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One parser under test.

    ``parse`` reads the bytes and checks the parsed values with ``assert``. ``allowed`` are the exceptions
    with which it may refuse the bytes; every other exception is a bug. ``seeds`` makes valid inputs to start
    from.
    """

    name: str
    parse: Callable[[bytes], None]
    allowed: tuple[type[Exception], ...]
    seeds: Callable[[], Iterable[bytes]]

    def accepts(self, data: bytes) -> bool:
        """Whether ``data`` is parsed; ``False`` if it is refused by an allowed exception."""
        try:
            self.parse(data)
        except self.allowed:
            return False
        return True
