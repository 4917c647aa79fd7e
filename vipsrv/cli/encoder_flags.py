"""The flags that say how results are encoded, beside ``--quality`` and ``--effort`` of ``resize_flags``."""

from typing import Annotated, Any

import typer

from vipsrv.options import NUMBER_BOUNDS, Chroma

_LEAST, _MOST = NUMBER_BOUNDS["min_ssim"]

ENCODER_FLAGS: dict[str, Any] = {
    "progressive": Annotated[
        bool | None,
        typer.Option(
            "--progressive/--no-progressive",
            help="Whether a jpeg, png or gif shows the whole image when its first part has arrived.  "
            "[default: no-progressive]",
        ),
    ],
    "chroma": Annotated[
        Chroma | None,
        typer.Option(
            "--chroma",
            help="How a lossy result stores colours: at half its width and height (4:2:0), or whole "
            "(4:4:4).  [default: auto]",
        ),
    ],
    "palette": Annotated[
        bool | None,
        typer.Option("--palette/--no-palette", help="Reduce a png to at most 256 colours, by --quality."),
    ],
    "optimize": Annotated[
        bool | None,
        typer.Option(
            "--optimize/--no-optimize",
            help="Whether a jpeg gets Huffman tables of its own.  [default: from --effort 5 on]",
        ),
    ],
    "min_ssim": Annotated[
        float | None,
        typer.Option(
            "--min-ssim",
            min=_LEAST,
            max=_MOST,
            metavar="SSIM",
            help="Lower the quality as long as the result looks like this, for example 0.97; 1 is equal.",
        ),
    ],
}
"""The type of each flag by the name of its option. A flag that is not given is ``None``."""
