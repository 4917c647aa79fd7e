"""What a resize took, for a person and as JSON."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vipsrv.client import ResizedImage, ResizeResults

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
class OutputFigures:
    """Of one result; ``saved`` is its path, ``None`` if it went to standard output. Sizes are bytes."""

    result_bytes: int
    ratio: float
    format: str
    quality: int
    saved: str | None
    processed: Dimensions

    @classmethod
    def of(cls, result: ResizedImage, saved: Path | None) -> "OutputFigures":
        """With the dimensions verified from the file. Raises ``OSError``."""
        # From the file where it is one: a pipe that was written to cannot be read back.
        verified = saved if saved is not None and saved.is_file() else result.data
        return cls(
            result_bytes=len(result.data),
            ratio=round(result.ratio, 3),
            format=result.format,
            quality=result.quality,
            saved=None if saved is None else str(saved),
            processed=measure(verified) or Dimensions(result.width, result.height, SERVER),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Sizes in bytes, times in milliseconds unless named otherwise; ``None`` where it is not known.

    ``ratio`` and ``result_bytes`` are those of all ``outputs`` together. ``listed`` tells that several may
    have been asked for, so that they are shown as a list also where there is one.
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
    original: Dimensions | None
    outputs: tuple[OutputFigures, ...]
    listed: bool

    @classmethod
    def of(
        cls,
        image: Path,
        results: ResizeResults,
        *,
        saved: Sequence[Path | None],
        server: str,
        embedded: bool,
        listed: bool = False,
    ) -> "Figures":
        """Of results and where each was saved, with the dimensions verified from the files.

        Raises ``OSError``.
        """
        told = results.source
        of_server = Dimensions(told.width, told.height, SERVER) if told else None
        return cls(
            image=str(image),
            server=server,
            embedded=embedded,
            original_bytes=image.stat().st_size,
            sent_bytes=results.sent,
            received_bytes=results.received,
            server_ms=asdict(results.timings) if results.timings else None,
            total_seconds=round(results.elapsed, 6),
            result_bytes=sum(len(output.data) for output in results.outputs),
            ratio=round(results.ratio, 3),
            original=measure(image) or of_server,
            outputs=tuple(
                OutputFigures.of(output, path) for output, path in zip(results.outputs, saved, strict=True)
            ),
            listed=listed,
        )

    def to_json(self) -> dict[str, Any]:
        """The same names as the fields, and where no list was asked for those of the one output, too."""
        figures = asdict(self)
        if not figures.pop("listed"):
            (output,) = figures.pop("outputs")
            figures = output | figures
        return figures

    def lines(self) -> list[str]:
        """For a person: a name and its figure in each."""
        together = f"  (all {len(self.outputs)} results together)" if len(self.outputs) > 1 else ""
        rows = [
            ("original size", _size(self.original_bytes)),
            ("sent", _size(self.sent_bytes)),
            ("received", _size(self.received_bytes)),
            ("server processing", self._server_time()),
            ("total time", f"{self.total_seconds * 1000:.1f} ms"),
            ("compression ratio", f"{self.ratio:.2f} : 1{together}"),
        ]
        original = ("original dimensions", str(self.original or "not known: Pillow cannot open it"))
        if self.listed:
            rows.append(original)
            for output in self.outputs:
                rows.append(("saved", output.saved or "standard output"))
                rows.append(("  dimensions", str(output.processed)))
                rows.append(("  size", f"{_size(output.result_bytes)}, {output.ratio:.2f} : 1"))
        else:
            (output,) = self.outputs
            rows.append(("saved", output.saved or "standard output"))
            rows.append(original)
            rows.append(("processed dimensions", str(output.processed)))
        return [f"{name:<21} {figure}" for name, figure in rows]

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
