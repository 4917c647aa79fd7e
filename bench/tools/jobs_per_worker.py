"""Compare the throughput of servers whose workers are replaced after few jobs and after many.

    python -m bench.tools.jobs_per_worker [--jobs 1] [--image jpeg-1.9mp.jpg] [--rounds 5]

Two servers, one with ``--jobs-per-worker`` as given and one with the default, take turns within one run, so
that the ratio holds on a noisy machine. Each round sends requests on two connections per worker.
"""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import typer

from bench.arguments import known_image
from bench.images import image_file
from bench.measuring.server import Server
from bench.wire import resize_once


def main(
    jobs: Annotated[int, typer.Option(min=1, help="Jobs after which a worker is replaced.")] = 1,
    name: Annotated[
        str, typer.Option("--image", help="One of bench.images.", callback=known_image)
    ] = "jpeg-1.9mp.jpg",
    width: Annotated[int, typer.Option(min=1)] = 800,
    height: Annotated[int, typer.Option(min=1)] = 600,
    requests: Annotated[int, typer.Option(min=1, help="Requests in a round.")] = 60,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    workers: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Print requests per second of both, and the ratios."""
    data = image_file(name).read_bytes()
    common = ("--workers", str(workers), "--log-level", "error")
    ratios = []
    with (
        Server(*common, "--jobs-per-worker", str(jobs)) as few,
        Server(*common) as many,
        ThreadPoolExecutor(2 * workers) as clients,
    ):

        def rate(server: Server) -> float:
            start = time.perf_counter()
            list(clients.map(lambda _: resize_once(server.port, data, width, height), range(requests)))
            return requests / (time.perf_counter() - start)

        for number in range(rounds + 1):
            with_few, with_many = rate(few), rate(many)
            if number:  # the first round is a warm-up
                ratios.append(with_few / with_many)
                print(
                    f"round {number}: {with_few:7.1f} and {with_many:7.1f} requests/s, ratio {ratios[-1]:.3f}"
                )
    print(f"{name}, {jobs} jobs per worker: median ratio {statistics.median(ratios):.3f} of {rounds} rounds")


if __name__ == "__main__":
    typer.run(main)
