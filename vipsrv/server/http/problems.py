"""The plain reply to a request that is refused: one line of text."""

from vipsrv.errors import RequestError
from vipsrv.server.http.messages import HttpResponse


def plain_problem(error: RequestError) -> HttpResponse:
    """Return the reply that tells the code and the message of an error."""
    return HttpResponse(
        status=error.status,
        headers=(("Content-Type", "text/plain; charset=utf-8"),),
        body=f"{error.code}: {error.message}\n".encode(),
    )
