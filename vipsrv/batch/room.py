"""How many images a batch holds in memory at once: by their number, and by their bytes."""

import asyncio


class Seat:
    """The place of one image in a ``Room``; ``holds`` changes as it is read and its results come."""

    def __init__(self, room: "Room", size: int) -> None:
        self._room = room
        self._size = 0
        self.holds(size)

    def holds(self, size: int) -> None:
        """State how many bytes are held now; may be more than there is room for."""
        self._room.change(size - self._size)
        self._size = size

    def leave(self) -> None:
        """Give the seat back."""
        self.holds(0)
        self._room.left()


class Room:
    """Bounds what is held: at most ``seats`` images, and no further image once they have ``most_bytes``.

    A single image is let in whatever its size. What results take is known only when they are there: they may
    exceed the bound, and then nothing else comes in until it is kept again.
    """

    def __init__(self, seats: int, most_bytes: int) -> None:
        self._seats = seats
        self._most_bytes = most_bytes
        self._taken = 0
        self._bytes = 0
        self._changed = asyncio.Event()

    @property
    def taken(self) -> int:
        """How many images are inside."""
        return self._taken

    @property
    def bytes(self) -> int:
        """How many bytes are held."""
        return self._bytes

    async def enter(self, size: int) -> Seat:
        """Wait for a seat for an image that will hold ``size`` bytes. One task at a time may wait."""
        while self._taken and (self._taken >= self._seats or self._bytes + size > self._most_bytes):
            self._changed.clear()
            await self._changed.wait()
        self._taken += 1
        return Seat(self, size)

    def change(self, size: int) -> None:
        """Count ``size`` bytes more, or fewer if it is negative."""
        self._bytes += size
        if size < 0:
            self._changed.set()

    def left(self) -> None:
        """Count one image less."""
        self._taken -= 1
        self._changed.set()
