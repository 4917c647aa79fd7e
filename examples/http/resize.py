"""Resize an image over HTTP with httpx: resize.py photo.jpg out.webp."""

import os
import sys
import time
from pathlib import Path

import httpx

URL = os.environ.get("VIPSRV_URL", "http://127.0.0.1:8080")
ATTEMPTS = 3


def resize(client: httpx.Client, path: Path, **parameters: str | int) -> httpx.Response:
    """Send one image; a problem that may pass is waited for."""
    attempt = 1
    while True:
        with path.open("rb") as image:
            response = client.post("/resize", params=parameters, content=image)
        if response.is_success:
            return response
        problem = response.json()
        if attempt == ATTEMPTS or not problem["retryable"]:
            sys.exit(f"{problem['code']}: {problem['detail']}")
        time.sleep(int(response.headers.get("Retry-After", "1")))
        attempt += 1


def main() -> None:
    """Resize the first argument into the second."""
    source, target = map(Path, sys.argv[1:])
    token = os.environ.get("VIPSRV_TOKEN")
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=URL, headers=headers, timeout=60) as client:
        response = resize(client, source, width=800, height=600, fit="inside", format="webp")
    target.write_bytes(response.content)
    print(response.headers["Vipsrv-Result"])
    print(f"{response.headers['Vipsrv-Ratio']} times smaller")


if __name__ == "__main__":
    main()
