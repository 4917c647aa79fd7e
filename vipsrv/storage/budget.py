"""Budgets of bytes, and the share that one client may hold of them.

A client may hold at most ``GREED`` times as much as is left for the others. Alone it gets three quarters of a
budget. Two that want everything get three sevenths each, ten get 3/31; the rest is left for
the next client. Nobody has to know how many clients there are, and no client waits for another to give
something back. The only slot that a client has may take all that is left, because a large image would
otherwise be refused for ever.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

GREED = 3
"""How many bytes a client may hold for each byte that is left."""


@dataclass(slots=True, eq=False)
class Holding:
    """What one client holds of one budget: ``size`` bytes."""

    size: int = 0


@dataclass(slots=True, eq=False)
class Share:
    """What one client holds of the spool: all slots that are opened with it count together."""

    memory: Holding = field(default_factory=Holding)
    disk: Holding = field(default_factory=Holding)
    files: Holding = field(default_factory=Holding)  # how many, in `size`
    uploads: int = 0
    """How many uploads of it wait to be resumed."""


MakeRoom = Callable[[Share | None], bool]
"""Removes something that can be spared, of one client or, for ``None``, of any; returns whether it has."""


def no_more_room(_: Share | None) -> bool:
    """Make no room, because nothing can be spared."""
    return False


class Budget:
    """At most ``size`` bytes that slots may hold."""

    __slots__ = ("_left", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._left = size

    @property
    def left(self) -> int:
        """Bytes that may still be taken; negative if some were taken beyond the budget."""
        return self._left

    @property
    def size(self) -> int:
        """Bytes that may be taken altogether."""
        return self._size

    def resize(self, size: int) -> None:
        """Change the size. If more is held already, nothing may be taken until enough was given back."""
        self._left += size - self._size
        self._size = size

    def allows(self, holding: Holding, size: int, *, own: int) -> bool:
        """Whether a slot that has ``own`` bytes of ``holding`` may take ``size`` more."""
        left = self._left - size
        return left >= 0 and (holding.size == own or holding.size + size <= GREED * left)

    def take(self, holding: Holding, size: int) -> None:
        """Count ``size`` more bytes of ``holding``, even if that is more than is allowed."""
        self._left -= size
        holding.size += size

    def give_back(self, holding: Holding, size: int) -> None:
        """Stop counting ``size`` bytes of ``holding``."""
        self._left += size
        holding.size -= size
