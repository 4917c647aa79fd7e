"""``vipsrv-client --info`` and ``--formats``: print a server's facts about an image or about itself."""

import json
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

import typer

from vipsrv.client import DescribedImage, ServerInfo

_CONNECTION_PARAMETERS = {
    *("host", "port", "protocol", "timeout", "embedded", "as_json", "images"),
    *("token_file", "tls", "ca", "cert", "key"),
}
"""The parameters that are also valid with ``--info`` and ``--formats``."""


def image_rows(info: DescribedImage) -> dict[str, Any]:
    """Return the fields of ``ImageInfo``, with sizes in stored pixels and in bytes, and the placeholders."""
    rows = asdict(info)
    del rows["placeholder"]
    return rows if info.placeholder is None else rows | info.placeholder.to_meta()


def server_rows(info: ServerInfo) -> dict[str, Any]:
    """Return a server's name, formats, fits, watermarks and limits (bytes, pixels, milliseconds)."""
    return {
        "server": info.name,
        "reads": list(info.reads),
        "writes": list(info.writes),
        "fits": list(info.fits),
        **({"watermarks": list(info.watermarks)} if info.watermarks else {}),
        **asdict(info.limits),
    }


def print_rows(rows: dict[str, Any], *, as_json: bool) -> None:
    """Print names and values, one per line or as one JSON object."""
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for name, value in rows.items():
        text = ", ".join(value) if isinstance(value, list) else value
        typer.echo(f"{name.replace('_', ' '):<21} {'unknown' if text is None else text}")


def refuse_other_options(
    context: typer.Context, command: str, *, has_image: bool = False, also: Collection[str] = ()
) -> None:
    """Raise ``ValueError`` for an option or image that ``--info`` or ``--formats`` would ignore.

    ``also`` are parameters that this command has, too.
    """
    if has_image:
        raise ValueError(f"{command} describes the server and takes no image")
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name in _CONNECTION_PARAMETERS or command in parameter.opts or name in also:
            continue
        if source is not None and source.name == "COMMANDLINE":
            raise ValueError(f"{command} resizes nothing, so {parameter.opts[0]} has no meaning with it")


def refuse_version_1(command: str, protocol: int) -> None:
    """Raise ``ValueError`` if the version of the protocol cannot carry the request."""
    if protocol == 1:
        raise ValueError(f"version 1 of the protocol has no {command}; use --protocol 2")
