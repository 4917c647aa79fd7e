"""What a server says of a picture and of itself, as names and values."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from vipsrv.client import ServerInfo
from vipsrv.options import ImageInfo

_OF_THE_CALL = {"host", "port", "protocol", "timeout", "embedded", "as_json", "image"}
"""The parameters that concern the asking, whatever is asked."""


def image_rows(info: ImageInfo) -> dict[str, Any]:
    """The names of ``ImageInfo``: pixels as stored, bytes."""
    return asdict(info)


def server_rows(info: ServerInfo) -> dict[str, Any]:
    """The server's name, what it reads and writes, its fits and limits (bytes, pixels, milliseconds)."""
    return {
        "server": info.name,
        "reads": list(info.reads),
        "writes": list(info.writes),
        "fits": list(info.fits),
        **asdict(info.limits),
    }


def refuse_other_options(context: typer.Context, question: str, image: Path | None = None) -> None:
    """Raise ``ValueError`` for an option that would be passed over where only a ``question`` is asked."""
    if image is not None:
        raise ValueError(f"{question} asks about the server and takes no picture")
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name in _OF_THE_CALL or question in parameter.opts:
            continue
        if source is not None and source.name == "COMMANDLINE":
            raise ValueError(f"{question} resizes nothing, so {parameter.opts[0]} has no meaning with it")
