"""Takes bodies whose bytes are not read straight into a slot: those in chunks, and those in a form."""

from collections.abc import Callable

from vipsrv.errors import Limit, TooLarge
from vipsrv.server.api.form_data import FileData, FileStarted, FormField, FormReader
from vipsrv.server.connections.inbox import BodyRoom
from vipsrv.server.http.routes import ImageTask


def store(data: memoryview, room: BodyRoom) -> None:
    """Put bytes of a body of unknown size into its slot. Raises ``RequestError``."""
    if room.received + len(data) > room.size:
        raise TooLarge(
            f"the image has more than {room.size} bytes, which is the limit", limit=Limit.MAX_UPLOAD
        )
    while data:
        part = room.room()
        size = min(len(part), len(data))
        part[:size] = data[:size]
        room.filled(size)
        data = data[size:]


class FormBody:
    """A body that is a form with an image in it; its fields before the image are for ``task``.

    ``open_slot`` is called when the image begins. It returns the slot for that, or ``None`` if the image is
    refused, which the rest of the form then is as well.
    """

    def __init__(self, boundary: bytes, task: ImageTask, open_slot: Callable[[], BodyRoom | None]) -> None:
        self._reader = FormReader(boundary)
        self._task = task
        self._open_slot = open_slot
        self._slot: BodyRoom | None = None

    def feed(self, data: memoryview) -> None:
        """Take a part of the form. Raises ``RequestError``."""
        for event in self._reader.receive(data):
            if isinstance(event, FileData):
                if self._slot is not None:
                    store(event.data, self._slot)
            elif isinstance(event, FormField):
                self._task.form_field(event.name, event.value)
            elif isinstance(event, FileStarted):
                self._slot = self._open_slot()
                if self._slot is None:
                    return

    def end(self) -> None:
        """Note that the body is complete. Raises ``RequestError`` if the form is not."""
        self._reader.receive_eof()
