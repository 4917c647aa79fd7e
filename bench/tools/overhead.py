"""Compare the CPU time of a request to the server with the same work in a bare loop.

    python -m bench.tools.overhead [--image jpeg-12mp.jpg] [--requests 40] [--rounds 5]

The loop is ``bench.baselines.bare_loop`` in one process. Both take turns within one run, so that the ratio
holds on a noisy machine. The CPU time is that of all the server's processes.
"""

import statistics
from typing import Annotated

import typer

from bench.arguments import known_image
from bench.baselines import BareLoop, Request
from bench.images import image_file
from bench.measuring.server import Server
from bench.wire import resize_once


def main(
    name: Annotated[
        str, typer.Option("--image", help="One of bench.images.", callback=known_image)
    ] = "jpeg-12mp.jpg",
    width: Annotated[int, typer.Option(min=1)] = 800,
    height: Annotated[int, typer.Option(min=1)] = 600,
    requests: Annotated[int, typer.Option(min=1, help="Requests in a round.")] = 40,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
) -> None:
    """Print the CPU milliseconds per request of both, and the ratio of each round."""
    path = image_file(name)
    data = path.read_bytes()
    with Server("--workers", "1", "--log-level", "warning") as server, BareLoop(processes=1) as loop:
        ratios = []
        for number in range(rounds + 1):
            bare = loop.load(Request(path, width, height), count=requests).cpu_ms / 1e3
            before = server.cpu_seconds()
            for _ in range(requests):
                resize_once(server.port, data, width, height)
            gateway, worker = ((b - a) / requests for a, b in zip(before, server.cpu_seconds(), strict=True))
            if number:  # the first round is a warm-up
                ratios.append((gateway + worker) / bare)
                print(
                    f"round {number}: loop {bare * 1e3:7.2f} ms, gateway {gateway * 1e3:6.2f} ms, "
                    f"worker {worker * 1e3:7.2f} ms, ratio {ratios[-1]:.3f}"
                )
    print(f"{name} to {width} × {height}: median ratio {statistics.median(ratios):.3f} of {rounds} rounds")


if __name__ == "__main__":
    typer.run(main)
