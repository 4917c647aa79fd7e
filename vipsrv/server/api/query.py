"""Parse the query of a request's target strictly: names and values, percent-encoded UTF-8."""

import re
from urllib.parse import unquote_to_bytes

from vipsrv.errors import BadRequest
from vipsrv.printable import printable

MAX_PARAMETERS = 64
"""More than there are parameters."""

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def parse_query(query: str) -> list[tuple[str, str]]:
    """Return the names and values in their order. Raises ``BadRequest``.

    A ``+`` means a space, as in a form: that is how the usual libraries write it.
    """
    pairs = [one for one in query.split("&") if one]
    if len(pairs) > MAX_PARAMETERS:
        raise BadRequest(f"the query has {len(pairs)} parameters; {MAX_PARAMETERS} are allowed")
    return [_parse(pair) for pair in pairs]


def _parse(pair: str) -> tuple[str, str]:
    name, equals, value = pair.partition("=")
    name = _decode(name)
    if not equals:
        raise BadRequest(f"{printable(name)}: has no value; write {printable(name)}=VALUE")
    return name, _decode(value)


def _decode(text: str) -> str:
    if not text.isascii() or _BAD_ESCAPE.search(text):
        raise BadRequest(
            f"{printable(text[:40])}: is not percent-encoded; write % as %25 and other characters as UTF-8"
        )
    try:
        return unquote_to_bytes(text.replace("+", " ")).decode()
    except UnicodeDecodeError:
        raise BadRequest(f"{printable(text[:40])}: is not percent-encoded UTF-8") from None
