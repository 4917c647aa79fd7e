"""Make the image of the live page that the README shows.

    python -m bench.tools.live_page_screenshot [--output docs/assets/live-page.webp] [--seconds 100]

A server gets a load that rises and falls, with some requests that it has to refuse; the system's Chromium
looks at its page. Needs the extra ``test``, which has Playwright.
"""

import io
import math
import random
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from playwright.sync_api import sync_playwright

from bench.images import image_file
from bench.measuring.server import Server
from vipsrv import Client, VipsrvError

IMAGES = ("jpeg-0.3mp.jpg", "jpeg-1.9mp.jpg", "jpeg-6mp.jpg")
"""What the clients send, the smaller ones more often."""

CLIENTS = 6
PERIOD = 60  # seconds of one rise and fall of the load


def main(
    output: Annotated[Path, typer.Option(help="Where to write the image.")] = Path(
        "docs/assets/live-page.webp"
    ),
    seconds: Annotated[float, typer.Option(min=5, help="Duration of the load before the screenshot.")] = 100,
    width: Annotated[int, typer.Option(min=360, help="Pixels of the browser's window.")] = 1280,
    height: Annotated[int, typer.Option(min=360)] = 1064,
    scheme: Annotated[str, typer.Option(help="light or dark.")] = "light",
) -> None:
    """Run the load, and write the screenshot as WebP. Exits with 1 without Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("chromium is not installed")
    images = [image_file(name).read_bytes() for name in IMAGES]
    stop = threading.Event()
    port = _free_port()
    with Server("--workers", "2", "--access-log", "off", "--ops-listen", f"127.0.0.1:{port}") as server:
        clients = [
            threading.Thread(target=_send, args=(server, images, number, stop)) for number in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                page = browser.new_page(
                    viewport={"width": width, "height": height},
                    color_scheme="dark" if scheme == "dark" else "light",
                )
                page.goto(f"http://127.0.0.1:{port}/")
                page.wait_for_timeout(seconds * 1000)
                shot = page.screenshot()
                browser.close()
        finally:
            stop.set()
            for client in clients:
                client.join()
    with Image.open(io.BytesIO(shot)) as image:
        image.save(output, "WEBP", lossless=True, method=6)
    print(f"{output}: {output.stat().st_size / 1000:.0f} kB")


def _send(server: Server, images: list[bytes], number: int, stop: threading.Event) -> None:
    """Send requests with pauses, which are long while the load is low, until ``stop``."""
    choice = random.Random(number)
    with Client(host=server.host, port=server.port) as client:
        while not stop.is_set():
            image = choice.choices(images, weights=(6, 3, 1))[0]
            fault = choice.random()
            try:
                client.resize(
                    image[:5000] if fault < 0.01 else image,
                    width=choice.choice((200, 320, 640)),
                    quality=choice.choice((75, 85)),
                )
            except VipsrvError:
                continue  # it is shown on the page
            load = 0.55 + 0.45 * math.sin(2 * math.pi * time.monotonic() / PERIOD)
            stop.wait(choice.expovariate(3 + 25 * load))


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


if __name__ == "__main__":
    typer.run(main)
