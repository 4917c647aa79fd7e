"""The report of a resize: sizes, times, ratio and dimensions, as text and as JSON."""

import base64
import io
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vipsrv.cli.upload import UploadImage, resumed_at
from vipsrv.client import ResizedImage, ResizeResults, SeekableReader, Version1Result
from vipsrv.printable import printable

PILLOW = "Pillow"
SERVER = "server"


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Width and height in pixels as stored, read ``by`` Pillow from the file or stated by the server."""

    width: int
    height: int
    by: str

    def __str__(self) -> str:
        mark = "" if self.by == PILLOW else "  (as stated by the server: Pillow cannot open it)"
        return f"{self.width} x {self.height}{mark}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputReport:
    """The report of one result. ``saved`` is its path, ``None`` for standard output. Sizes are bytes.

    ``ssim`` is ``None`` where it was not asked for.
    """

    result_bytes: int
    ratio: float
    format: str
    quality: int
    frames: int
    ssim: float | None
    saved: str | None
    processed: Dimensions

    @classmethod
    def of(cls, result: ResizedImage, saved: Path | None) -> "OutputReport":
        """Make the report of a result, with the dimensions read from its file. Raises ``OSError``."""
        # A pipe that was written to cannot be read back.
        verified = saved if saved is not None and saved.is_file() else result.data
        return cls(
            result_bytes=len(result.data),
            ratio=round(result.ratio, 3),
            format=result.format,
            quality=result.quality,
            frames=result.frames,
            ssim=result.ssim,
            saved=None if saved is None else str(saved),
            processed=measure(verified) or Dimensions(result.width, result.height, SERVER),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields for JSON; without ``ssim`` where it was not asked for."""
        fields = asdict(self) | path_fields("saved", self.saved)
        if self.ssim is None:
            del fields["ssim"]
        return fields

    def seen(self) -> str:
        """Return what is known of how the result looks."""
        return f"{self.quality}, SSIM {self.ssim:.4f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultReport:
    """The report of a request. Sizes are bytes, times are milliseconds unless named otherwise.

    ``sent_bytes`` are those of the last of the ``attempts``, which did not have to send ``resumed_bytes``.
    ``ratio`` and ``result_bytes`` are those of all ``outputs`` together. ``listed`` shows the outputs as a
    list even if there is only one. ``pages`` are also frames. ``None`` is a value that is not known.
    """

    image: str
    server: str
    embedded: bool
    original_bytes: int
    sent_bytes: int
    resumed_bytes: int
    received_bytes: int
    server_ms: dict[str, float] | None
    total_seconds: float
    attempts: int
    result_bytes: int
    ratio: float
    original: Dimensions | None
    pages: int | None
    outputs: tuple[OutputReport, ...]
    listed: bool
    placeholder: dict[str, str]

    @classmethod
    def of(
        cls,
        image: UploadImage,
        results: ResizeResults | Version1Result,
        *,
        saved: Sequence[Path | None],
        server: str,
        embedded: bool,
        listed: bool = False,
    ) -> "ResultReport":
        """Make the report of results and their files, with the dimensions read from the files.

        Raises ``OSError``.
        """
        if isinstance(results, Version1Result):
            outputs: tuple[ResizedImage, ...] = (results,)
            stated, timings, pages = None, None, None
            placeholder = {}
        else:
            outputs = results.outputs
            stated = Dimensions(results.source.width, results.source.height, SERVER)
            timings, pages = asdict(results.timings), results.source.pages
            placeholder = {} if results.placeholder is None else results.placeholder.to_meta()
        return cls(
            image=image.shown,
            server=server,
            embedded=embedded,
            original_bytes=image.size,
            sent_bytes=results.sent,
            resumed_bytes=0 if isinstance(results, Version1Result) else results.resumed,
            received_bytes=results.received,
            server_ms=timings,
            total_seconds=round(results.elapsed, 6),
            attempts=results.attempts,
            result_bytes=sum(len(output.data) for output in outputs),
            ratio=round(results.ratio, 3),
            original=measure(image.content) or stated,
            pages=pages,
            outputs=tuple(OutputReport.of(output, path) for output, path in zip(outputs, saved, strict=True)),
            listed=listed,
            placeholder=placeholder,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields for JSON; unless ``listed``, the fields of the only output are among them."""
        report = asdict(self) | path_fields("image", self.image)
        outputs = tuple(output.to_json() for output in self.outputs)
        del report["outputs"]
        if not self.placeholder:
            del report["placeholder"]
        if report.pop("listed"):
            return report | {"outputs": outputs}
        return outputs[0] | report

    def lines(self) -> list[str]:
        """Return lines of text, each with a name and a value."""
        together = f"  (all {len(self.outputs)} results together)" if len(self.outputs) > 1 else ""
        rows = [
            ("original size", _size(self.original_bytes)),
            ("sent", f"{_size(self.sent_bytes)}{self._resumed()}"),
            ("received", _size(self.received_bytes)),
            ("server processing", self._server_time()),
            ("total time", f"{self.total_seconds * 1000:.1f} ms{self._attempts()}"),
            ("compression ratio", f"{self.ratio:.2f} : 1{together}"),
        ]
        original = ("original dimensions", str(self.original or "unknown: Pillow cannot open it"))
        if self.listed:
            rows.append(original)
            for output in self.outputs:
                rows.append(("saved", printable(output.saved or "standard output")))
                rows.append(("  dimensions", str(output.processed)))
                rows.append(("  size", f"{_size(output.result_bytes)}, {output.ratio:.2f} : 1"))
                rows += self._frames("  frames", output)
                rows.extend([] if output.ssim is None else [("  quality", output.seen())])
        else:
            (output,) = self.outputs
            rows.append(("saved", printable(output.saved or "standard output")))
            rows.append(original)
            rows.extend([] if output.ssim is None else [("quality", output.seen())])
            rows.append(("processed dimensions", str(output.processed)))
            rows += self._frames("frames", output)
        rows += self.placeholder.items()
        return [f"{name:<21} {value}" for name, value in rows]

    def _frames(self, name: str, output: OutputReport) -> list[tuple[str, str]]:
        """Return the row with how many of the image's pages or frames a result has; none if it has one."""
        if self.pages is None or self.pages == 1:
            return []
        return [(name, f"{output.frames} of {self.pages}")]

    def _resumed(self) -> str:
        """Return where the upload was resumed: ``sent`` is what was sent from there on."""
        if not self.resumed_bytes:
            return ""
        return f"  {resumed_at(self.resumed_bytes, self.original_bytes)}"

    def _attempts(self) -> str:
        return "" if self.attempts == 1 else f"  ({self.attempts} attempts)"

    def _server_time(self) -> str:
        if self.server_ms is None:
            return "unknown: version 1 of the protocol does not state it"
        ms = self.server_ms
        return (
            f"{ms['process']:.1f} ms"
            f"  (receiving {ms['receive']:.1f}, waiting {ms['queue']:.1f}, total {ms['total']:.1f})"
        )


def path_fields(name: str, path: str | None) -> dict[str, str | None]:
    """Return the JSON fields for a path: ``name``, and ``<name>_base64`` for one that is not UTF-8.

    A JSON text is UTF-8 and cannot hold such a path, so that the first field only shows it. The second has
    its bytes, which identify the file.
    """
    if path is None or is_utf8(path):
        return {name: path}
    return {name: printable(path), f"{name}_base64": base64.b64encode(os.fsencode(path)).decode()}


def is_utf8(text: str) -> bool:
    """Whether a file name can be encoded, that is, has no surrogates for bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def measure(image: Path | bytes | SeekableReader) -> Dimensions | None:
    """Read the dimensions from an image's header with Pillow; ``None`` if it cannot."""
    from PIL import Image  # noqa: PLC0415 - loaded only once there is a result

    limit = Image.MAX_IMAGE_PIXELS
    # The limit protects decoding; only the header is read here.
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file: Any = io.BytesIO(image) if isinstance(image, bytes) else image
            if not isinstance(file, Path):
                file.seek(0, os.SEEK_SET)
            with Image.open(file) as opened:
                return Dimensions(*opened.size, PILLOW)
    except Exception:  # noqa: BLE001 - each of its readers raises its own errors
        return None
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _size(size: int) -> str:
    units = ("bytes", "kB", "MB", "GB", "TB")
    scaled, unit = float(size), 0
    while scaled >= 1000 and unit < len(units) - 1:  # noqa: PLR2004 - the step of decimal units
        scaled, unit = scaled / 1000, unit + 1
    return f"{size} bytes" if not unit else f"{scaled:.1f} {units[unit]}  ({size:,} bytes)"
