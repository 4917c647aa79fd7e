"""A real server that speaks HTTP, for the tests, and what its replies are checked with."""

import io
from typing import Any

import httpx
from PIL import Image

from tests.support.running_server import RunningServer


class RunningHttpServer(RunningServer):
    """A ``RunningServer`` that listens for HTTP on a free loopback port, at ``url``."""

    def __init__(self, *arguments: str) -> None:
        super().__init__("--listen", "http://127.0.0.1:0", *arguments)

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        (found,) = [one for one in self.listeners if one.startswith("http://")]
        return found


def shape(data: bytes) -> tuple[str | None, tuple[int, int]]:
    """Format and size of an image."""
    with Image.open(io.BytesIO(data)) as image:
        return image.format, image.size


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem that a reply must be."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert (found["status"], found["code"]) == (status, code)
    return found
