"""The formats of results: which there are, how each is written, and what each can hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyvips

from vipsrv.errors import BadRequest
from vipsrv.options import Format, ImageInfo, Keep


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """A format that is written. ``lossy``: it has a quality; ``lossless``: it can give every pixel back;
    ``keeps``: the metadata that may be asked of it (``all`` is as much as it holds).
    """

    format: Format
    saver: str
    options: Mapping[str, Any] = field(default_factory=dict)
    lossy: bool
    lossless: bool
    alpha: bool
    keeps: frozenset[Keep]


_ANY = frozenset(Keep)

_WRITERS = (
    Writer(format=Format.JPEG, saver="jpegsave_buffer", lossy=True, lossless=False, alpha=False, keeps=_ANY),
    Writer(format=Format.PNG, saver="pngsave_buffer", lossy=False, lossless=True, alpha=True, keeps=_ANY),
    Writer(format=Format.WEBP, saver="webpsave_buffer", lossy=True, lossless=True, alpha=True, keeps=_ANY),
    # 800 × 600 at quality 60 in CPU ms, KB and SSIM: effort 0: 27, 24.8, .984; 3: 144, 22.0, .985;
    # 4 (libvips' own default): 829, 19.0, .984.
    Writer(
        format=Format.AVIF,
        saver="heifsave_buffer",
        options={"compression": "av1", "effort": 3},
        lossy=True,
        lossless=True,
        alpha=True,
        keeps=_ANY,
    ),
    # 800 × 600 in CPU ms and KB: LZW 22, 480; deflate 65, 427. libvips writes no EXIF into a TIFF.
    Writer(
        format=Format.TIFF,
        saver="tiffsave_buffer",
        options={"compression": "lzw", "predictor": "horizontal"},
        lossy=False,
        lossless=True,
        alpha=True,
        keeps=_ANY - {Keep.EXIF},
    ),
    # 800 × 600 in CPU ms and KB: effort 4: 487, 207; 7 (libvips' own default): 1160, 181.
    Writer(
        format=Format.GIF,
        saver="gifsave_buffer",
        options={"effort": 4},
        lossy=False,
        lossless=False,
        alpha=True,
        keeps=_ANY - {Keep.EXIF, Keep.ICC},
    ),
)

_writers: dict[Format, Writer] = {}


def try_out() -> None:
    """Write a tiny picture in every format, once for a process, to find out which can be written.

    Raises ``pyvips.Error`` where JPEG fails.
    """
    picture = pyvips.Image.black(8, 8, bands=3).copy(interpretation="srgb")
    for writer in _WRITERS:
        try:
            pyvips.Operation.call(writer.saver, picture, **writer.options)
        except pyvips.Error:
            if writer.format is Format.JPEG:
                raise
        else:
            _writers[writer.format] = writer


def written_formats() -> tuple[str, ...]:
    """The names of the formats that can be written, once they have been tried out."""
    return tuple(format_.value for format_ in _writers)


def find_writer(asked: Format, source: ImageInfo) -> Writer:
    """The writer of the format that is asked for; ``auto`` is the source's own, and where that cannot be
    written PNG for a picture with transparency, JPEG for one without. Raises ``BadRequest``.
    """
    if asked is Format.AUTO:
        own = _writers.get(Format(source.format)) if source.format in list(Format) else None
        instead = Format.PNG if source.has_alpha and Format.PNG in _writers else Format.JPEG
        return own or _writers[instead]
    writer = _writers.get(asked)
    if writer is None:
        raise BadRequest(f"format: {asked} cannot be written by this server's libvips; {_choose(_writers)}")
    return writer


def with_quality() -> str:
    """A hint that names the formats whose quality can be lowered."""
    return _choose([name for name, writer in _writers.items() if writer.lossy])


def without_loss() -> str:
    """A hint that names the formats that can be lossless."""
    return _choose([name for name, writer in _writers.items() if writer.lossless])


def keeping(keep: Keep) -> str:
    """A hint that names the formats that hold this metadata."""
    return _choose([name for name, writer in _writers.items() if keep in writer.keeps])


def _choose(formats: Any) -> str:
    return f"choose one of: {', '.join(formats)}"
