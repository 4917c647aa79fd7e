"""Bodies of replies that no socket has carried."""

from tests.server.fakes import content
from vipsrv.server.http.messages import HttpResponse


def whole_body(response: HttpResponse) -> bytes:
    """The content of a reply as a connection sends it. The result is closed."""
    if response.result is None:
        return response.body
    stored = content(response.result)
    body = bytearray(response.body)
    position = 0
    for offset, inserted in response.inserts:
        assert offset >= position
        body += stored[position:offset] + inserted
        position = offset
    response.result.close()
    return bytes(body + stored[position:])


def header(response: HttpResponse, name: str) -> str:
    """The only value of a field."""
    (value,) = [value for one, value in response.headers if one.lower() == name.lower()]
    return value
