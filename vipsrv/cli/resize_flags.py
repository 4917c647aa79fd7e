"""The options of the command line that ``vipsrv-client`` and ``vipsrv batch`` share.

Each is the type of a parameter of the command: what to make of an image, how long it may take, and the token
for the server. ``tls_options`` beside it has those of TLS.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from vipsrv.cli.result_options import parse_format
from vipsrv.client import Retry
from vipsrv.client.login_token import TOKEN_FILE_VARIABLE, TOKEN_VARIABLE
from vipsrv.client.retry import MOST_ATTEMPTS
from vipsrv.client.timeouts import MAX_SECONDS
from vipsrv.options import MAX_EFFORT, Fit, Format, Keep, Position

MAX_DEADLINE = (2**31 - 1) // 1000
"""Seconds: the longest deadline that the protocol can carry."""

FitFlag = Annotated[
    Fit | None,
    typer.Option(
        "--fit",
        help="How to fit an image of other proportions: stretch it (fill), add borders (contain), crop "
        "it (cover), or keep its proportions within (inside) or around (outside) the size.  "
        "[default: fill; inside if only one side is given]",
    ),
]
PositionFlag = Annotated[
    Position,
    typer.Option(
        "--position",
        metavar="POSITION",
        help=f"The part that cover keeps, and where contain places the image: {', '.join(Position)}.",
    ),
]
QualityFlag = Annotated[
    int | None,
    typer.Option("--quality", min=1, max=100, help="Quality, 1 to 100.  [default: the server's]"),
]
EffortFlag = Annotated[
    int | None,
    typer.Option(
        "--effort",
        min=0,
        max=MAX_EFFORT,
        help="CPU time for a smaller file, 0 (fastest) to 9; tiff ignores it.  [default: that of the format]",
    ),
]
LosslessFlag = Annotated[bool, typer.Option("--lossless", help="Encode without loss.")]
MaxBytesFlag = Annotated[
    str | None,
    typer.Option(
        "--max-bytes",
        metavar="SIZE",
        help="Lower the quality until the result is no larger than this, for example 100KB or 1.5MiB.",
    ),
]
BackgroundFlag = Annotated[
    str,
    typer.Option("--background", metavar="COLOUR", help="Colour of borders, and behind transparency."),
]
KeepFlag = Annotated[Keep, typer.Option("--keep", help="Metadata to copy to the result.")]
PageFlag = Annotated[
    int, typer.Option("--page", min=0, help="Page of a document or frame of an animation, from 0.")
]
PagesFlag = Annotated[
    str | None,
    typer.Option(
        "--pages",
        metavar="all|FIRST-LAST",
        help="Frames of an animation, from 0; the result is an animated webp or gif.",
    ),
]
EnlargeFlag = Annotated[
    bool, typer.Option("--enlarge/--no-enlarge", help="Whether to enlarge smaller images.")
]
DeadlineFlag = Annotated[
    float | None,
    typer.Option(
        "--deadline",
        min=0.001,
        max=MAX_DEADLINE,
        metavar="SECONDS",
        help="Time after which the server gives up.  [default: the server's]",
    ),
]
TokenFileFlag = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        readable=False,  # that error has its own exit code
        help="File with the token, if the server requires one.  "
        f"[env var: {TOKEN_FILE_VARIABLE}, or {TOKEN_VARIABLE} with the token itself]",
    ),
]
TimeoutFlag = Annotated[
    float,
    typer.Option(
        "--timeout",
        min=0.001,
        max=MAX_SECONDS,
        metavar="SECONDS",
        help="Time for each image: connecting, sending, all attempts and the pauses between them.",
    ),
]
RetriesFlag = Annotated[
    int,
    typer.Option(
        "--retries",
        min=0,
        max=MOST_ATTEMPTS - 1,
        metavar="N",
        help="How often to send an image again that was lost or that the server had no room for.",
    ),
]
DEFAULT_RETRIES = Retry().attempts - 1


def format_flag(default: str) -> Any:
    """Return the option ``--format``; its help says what the ``default`` is."""
    return typer.Option(
        "--format",
        metavar=f"[{'|'.join(Format)}]",
        parser=parse_format,
        help="Format of the result; auto keeps the format of the image if the server can write it.  "
        f"[default: {default}]",
    )


def deadline_in_ms(seconds: float | None) -> int | None:
    """Return the value of ``--deadline`` as the protocol has it."""
    return None if seconds is None else max(1, round(seconds * 1000))
