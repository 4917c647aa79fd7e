"""Kill workers while many connections send requests: is every reply right, and is none lost?

    python -m bench.tools.chaos [--connections 200] [--seconds 20] [--every 0.2]

Sends a mix of images over version 1 and kills a random worker with SIGKILL again and again. Each reply must
be an image of the exact size, or the error 502 worker_died. At the end the server must work as before.
"""

import io
import os
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import typer
from PIL import Image

from bench.images import image_file
from bench.measuring.server import Server
from bench.wire import Refused, resize_once

IMAGES = (
    "jpeg-0.3mp.jpg",
    "jpeg-1mp.jpg",
    "jpeg-1.9mp.jpg",
    "png-3mp.png",
    "webp-6mp.webp",
    "jpeg-6mp.jpg",
)

WORKER_DIED = "502 worker_died"


def main(
    connections: Annotated[int, typer.Option(min=1)] = 200,
    seconds: Annotated[float, typer.Option(min=0.1, help="Duration.")] = 20.0,
    every: Annotated[float, typer.Option(min=0, help="Seconds between kills; 0 to kill none.")] = 0.2,
    workers: Annotated[int, typer.Option(min=0, help="Workers; 0 for the server's default.")] = 0,
) -> None:
    """Print how many replies of each kind came; exits with 1 if one is wrong or lost."""
    images = [image_file(name).read_bytes() for name in IMAGES]
    over = threading.Event()
    arguments = ("--workers", str(workers)) if workers else ()
    with Server("--log-level", "error", *arguments) as server:

        def client(number: int) -> Counter[str]:
            chance = random.Random(number)
            tally: Counter[str] = Counter()
            while True:
                tally[_one(server.port, chance.choice(images), chance.randrange(16, 400), 120)] += 1
                if over.is_set():
                    return tally

        with ThreadPoolExecutor(connections) as threads:
            clients = [threads.submit(client, number) for number in range(connections)]
            try:
                kills = _kill_workers(server, seconds, every)
            finally:
                over.set()
        during = sum((one.result() for one in clients), Counter[str]())
        afterwards = Counter(_one(server.port, image, 320, 240) for image in images * 5)
    print(f"{connections} connections, {seconds:g} s, {kills} workers killed: {dict(during)}")
    print(f"afterwards: {dict(afterwards)}")
    died = during.pop(WORKER_DIED, 0)
    if set(during) != {"right"} or died > kills or set(afterwards) != {"right"}:
        raise typer.Exit(1)


def _kill_workers(server: Server, seconds: float, every: float) -> int:
    chance = random.Random(1)
    kills = 0
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, every or left))
        workers = server.pids[1:]
        if every and workers:
            os.kill(chance.choice(workers), signal.SIGKILL)
            kills += 1
    return kills


def _one(port: int, image: bytes, width: int, height: int) -> str:
    """Send a request and return its outcome, also if it fails: an exception would end the client
    unnoticed.
    """
    try:
        result = resize_once(port, image, width, height)
    except Refused as error:
        return WORKER_DIED if error.code == "worker_died" else f"refused: {error}"
    except OSError as error:
        return f"lost: {error!r}"
    try:
        with Image.open(io.BytesIO(result)) as opened:
            opened.load()
            size = opened.size
    except Exception as error:  # noqa: BLE001 - Pillow raises many kinds of errors for data that is no image
        return f"no image: {type(error).__name__}"
    return "right" if size == (width, height) else f"wrong size: {size}"


if __name__ == "__main__":
    typer.run(main)
