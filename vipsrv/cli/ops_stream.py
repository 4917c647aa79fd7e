"""The stream of live figures of a server, read from its ops listener with the standard library only.

Server-sent events over HTTP/1.1 (WHATWG HTML, 9.2), over TCP or a unix socket.
"""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from vipsrv.address import Address
from vipsrv.cli.ops_connection import ops_connection
from vipsrv.errors import ClientTimeout, ConnectFailed, ConnectionLost
from vipsrv.printable import printable

_LONGEST_LINE = 4 * 1024 * 1024
"""Bytes of a line that are read: the errors and the workers of a large server take some 100 KB."""


class Event(NamedTuple):
    """An event: its name, and its data."""

    name: str
    data: dict[str, Any]


@contextmanager
def open_stream(address: Address, timeout: float) -> Iterator[Iterator[Event]]:
    """Open the stream; ``timeout`` is how many seconds the server may be silent.

    Raises ``ConnectFailed``, ``ConnectionLost`` where the stream ends, and ``ClientTimeout``.
    """
    connection = ops_connection(address, timeout)
    try:
        try:
            connection.request("GET", "/events", headers={"Accept": "text/event-stream"})
            response = connection.getresponse()
        except TimeoutError:
            raise ClientTimeout(f"{address} did not answer within {timeout:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise ConnectFailed(f"no ops listener answers at {address}: {_reason(error)}") from None
        if response.status != http.HTTPStatus.OK:
            raise ConnectFailed(f"{address} refuses the live figures: {_refusal(response)}")
        if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
            raise ConnectFailed(f"what answers at {address} is no ops listener of vipsrv")
        yield _events(response, address)
    finally:
        connection.close()


def _events(response: http.client.HTTPResponse, address: Address) -> Iterator[Event]:
    name, data = "", ""
    while True:
        try:
            line = response.readline(_LONGEST_LINE)
        except TimeoutError:
            raise ClientTimeout(f"the live figures of {address} have stopped") from None
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionLost(f"the live figures of {address} have stopped: {_reason(error)}") from None
        if not line.endswith(b"\n"):
            raise ConnectionLost(f"the live figures of {address} have ended")
        field, _, value = line.decode("utf-8", "replace").strip("\r\n").partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data = value
        elif not field and data:
            yield _parse(name, data, address)
            name, data = "", ""


def _parse(name: str, data: str, address: Address) -> Event:
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ConnectionLost(f"what {address} sends is no event of vipsrv")
    return Event(name, value)


def _refusal(response: http.client.HTTPResponse) -> str:
    """Return why a server refuses: the detail of its problem (RFC 9457), or else the status."""
    try:
        detail = json.loads(response.read(_LONGEST_LINE))["detail"]
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        detail = response.reason
    return printable(f"{response.status} {detail}")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return printable(str(error) or type(error).__name__)
