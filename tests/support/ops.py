"""Requests to the ops listener of a server, as curl would make them."""

import http.client
import json
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

SECONDS = 60


@dataclass(frozen=True)
class Reply:
    """The status and the content of a reply."""

    status: int
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(self._path)


def get(where: str, path: str, **fields: str) -> Reply:
    """Ask for a path at what ``RunningServer.ops`` names."""
    return ask(where, "GET", path, None, **fields)


def ask(where: str, method: str, path: str, body: bytes | None, **fields: str) -> Reply:
    """Make any request; ``sec_fetch_site`` is the field ``sec-fetch-site``."""
    connection = (
        _UnixConnection(where.partition("unix:")[2])
        if "unix:" in where
        else http.client.HTTPConnection(urlsplit(where).netloc, timeout=SECONDS)
    )
    try:
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return Reply(response.status, response.read())
    finally:
        connection.close()
