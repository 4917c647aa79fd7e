"""A pipeline that decodes nothing: each image has the same facts, and each result is the same 8 KB."""

from types import SimpleNamespace
from typing import Any

from vipsrv.options import ImageInfo, OutputInfo

_RESULT = b"\xff\xd8" + bytes(8190)

_INFO = ImageInfo(format="jpeg", width=640, height=480, pages=1, has_alpha=False, orientation=1, size=50_000)
_OUTPUT = SimpleNamespace(
    info=OutputInfo(width=200, height=150, format="jpeg", quality=85, size=len(_RESULT)), data=_RESULT
)


class NeedsHeavyLane(Exception):
    """Never raised."""


class Upload:
    """Ignores the image."""

    @classmethod
    def from_memory(cls, _image: memoryview) -> "Upload":
        """The upload of an image in memory."""
        return cls()

    @classmethod
    def from_descriptor(cls, _descriptor: int, _size: int) -> "Upload":
        """The upload of an image in a file."""
        return cls()


def start(_formats: object) -> list[Any]:
    """The formats that can be read."""
    return [SimpleNamespace(name="jpeg", library="none", version="0")]


def written_formats() -> tuple[str, ...]:
    """The formats that can be written."""
    return ("jpeg",)


def read_info(_upload: Upload, **_options: object) -> ImageInfo:
    """The facts about an image."""
    return _INFO


def load_watermarks(_files: object, _config: object) -> None:
    """Take none."""


def resize_and_describe(
    _upload: Upload, _outputs: object, _asked: object, **_options: object
) -> tuple[Any, None]:
    """A result, and nothing that stands for the image."""
    return SimpleNamespace(source=_INFO, outputs=[_OUTPUT]), None
