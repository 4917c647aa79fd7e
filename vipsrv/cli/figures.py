"""What a resize took, for a person and as JSON."""

import io
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vipsrv.client import ResizeResult

PILLOW = "Pillow"
SERVER = "server"


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Pixels as stored in a file; told ``by`` Pillow, from the file itself, or by the server."""

    width: int
    height: int
    by: str

    def __str__(self) -> str:
        mark = "" if self.by == PILLOW else "  (the server's figures: Pillow cannot open it)"
        return f"{self.width} x {self.height}{mark}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Sizes in bytes, times in milliseconds unless named otherwise; ``None`` where it is not known.

    ``saved`` is the path of the result, ``None`` if that went to standard output.
    """

    image: str
    server: str
    embedded: bool
    original_bytes: int
    sent_bytes: int
    received_bytes: int
    server_ms: dict[str, float] | None
    total_seconds: float
    result_bytes: int
    ratio: float
    format: str
    quality: int
    saved: str | None
    original: Dimensions | None
    processed: Dimensions

    @classmethod
    def of(
        cls, image: Path, result: ResizeResult, *, saved: Path | None, server: str, embedded: bool
    ) -> "Figures":
        """Of a result, with the dimensions verified from the files. Raises ``OSError``."""
        # From the file where it is one: a pipe that was written to cannot be read back.
        verified = saved if saved is not None and saved.is_file() else result.data
        told = result.source
        of_server = Dimensions(told.width, told.height, SERVER) if told else None
        return cls(
            image=str(image),
            server=server,
            embedded=embedded,
            original_bytes=image.stat().st_size,
            sent_bytes=result.sent,
            received_bytes=result.received,
            server_ms=asdict(result.timings) if result.timings else None,
            total_seconds=round(result.elapsed, 6),
            result_bytes=len(result.data),
            ratio=round(result.ratio, 3),
            format=result.format,
            quality=result.quality,
            saved=None if saved is None else str(saved),
            original=measure(image) or of_server,
            processed=measure(verified) or Dimensions(result.width, result.height, SERVER),
        )

    def to_json(self) -> dict[str, Any]:
        """The same names as the fields."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For a person: a name and its figure in each."""
        rows = {
            "original size": _size(self.original_bytes),
            "sent": _size(self.sent_bytes),
            "received": _size(self.received_bytes),
            "server processing": self._server_time(),
            "total time": f"{self.total_seconds * 1000:.1f} ms",
            "compression ratio": f"{self.ratio:.2f} : 1",
            "saved": self.saved or "standard output",
            "original dimensions": str(self.original or "not known: Pillow cannot open it"),
            "processed dimensions": str(self.processed),
        }
        return [f"{name:<21} {figure}" for name, figure in rows.items()]

    def _server_time(self) -> str:
        if self.server_ms is None:
            return "not told by version 1 of the protocol"
        ms = self.server_ms
        return (
            f"{ms['process']:.1f} ms"
            f"  (receiving {ms['receive']:.1f}, waiting {ms['queue']:.1f}, in all {ms['total']:.1f})"
        )


def measure(image: Path | bytes) -> Dimensions | None:
    """What Pillow reads from a file's header, or ``None`` where it cannot."""
    from PIL import Image  # noqa: PLC0415 - only here, and not before a result is there

    limit = Image.MAX_IMAGE_PIXELS
    # The limit is for those who decode; here a header is read.
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
                return Dimensions(*opened.size, PILLOW)
    except Exception:  # noqa: BLE001 - each of its readers has errors of its own for a file it cannot read
        return None
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _size(size: int) -> str:
    units = ("bytes", "kB", "MB", "GB", "TB")
    scaled, unit = float(size), 0
    while scaled >= 1000 and unit < len(units) - 1:  # noqa: PLR2004 - the step of decimal units
        scaled, unit = scaled / 1000, unit + 1
    return f"{size} bytes" if not unit else f"{scaled:.1f} {units[unit]}  ({size:,} bytes)"
