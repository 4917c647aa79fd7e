"""Origins of web pages, as browsers send them in the header Origin."""

import re

ANY_ORIGIN = "*"
"""Stands for the pages of every origin."""

_ORIGIN = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[1-9][0-9]{0,4})?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def check_origin(origin: str) -> None:
    """Raise ``ValueError`` unless a text is ``*`` or an origin as a browser writes it (RFC 6454, 6.2).

    Origins are compared as texts, so one that is written in another way would match nothing.
    """
    if origin == ANY_ORIGIN:
        return
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        raise ValueError(f"{origin!r} is no origin: write https://example.com, http://localhost:3000 or *")
    scheme, _, port = match.groups()
    if port == _DEFAULT_PORTS[scheme]:
        raise ValueError(f"{origin!r}: browsers leave out this port; write {origin.removesuffix(port)}")
