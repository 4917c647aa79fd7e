"""An image that a source has listed: its key, and what tells one version of it from the next."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedImage:
    """An image of a source, before it is read.

    ``key`` is its name within the source, with ``/`` between the parts, and never starts with one. ``size``
    is bytes; ``modified`` is nanoseconds since the epoch; ``etag`` is what the store calls this version.
    What a source does not know is ``None``.

    ``location`` is the path or URL of an image that a list of keys names somewhere else than its others;
    ``None`` means that the image is at ``key`` within its source.
    """

    key: str
    size: int | None = None
    modified: int | None = None
    etag: str | None = None
    location: str | None = None

    @property
    def version(self) -> str:
        """What changes when the content changes: the ETag, or size and time; empty if nothing is known."""
        if self.etag is not None:
            return self.etag
        if self.size is None or self.modified is None:
            return ""
        return f"{self.size}-{self.modified}"
