"""What became of one image: a row of the manifest."""

from dataclasses import dataclass

OK = "ok"
"""The ``code`` of an image whose results are all at the destination."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRow:
    """One result at the destination. ``width`` and ``height`` are pixels; ``sha256`` is hex."""

    key: str
    width: int
    height: int
    format: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of one image of the source.

    ``key`` and ``version`` are those of the ``ListedImage``. ``options`` is the digest of what was asked for.
    ``status`` and ``code`` are 200 and ``ok``, those of the protocol (422 ``corrupt_image``), or those of
    ``Problem``. ``bytes`` is the size of the source image. ``attempts`` counts requests; ``ms`` is
    milliseconds from the start of reading the image to its last result at the destination. ``ended`` is
    milliseconds since the epoch, and decides which of two rows of a key is the later one. ``run`` is the id
    of the run.
    """

    key: str
    version: str
    options: str
    bytes: int
    outputs: tuple[OutputRow, ...] = ()
    status: int
    code: str
    message: str = ""
    attempts: int
    ms: float
    ended: int
    run: str

    @property
    def ok(self) -> bool:
        """Whether all results of the image are at the destination."""
        return self.code == OK
