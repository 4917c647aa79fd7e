"""What a request costs over the server, against the same work in a bare loop in one process.

    python -m bench.overhead [--picture jpeg-12mp.jpg] [--requests 40] [--rounds 5]

The loop is ``thumbnail_buffer(…, size="force")`` and ``jpegsave_buffer(Q=85)`` with ``VIPS_CONCURRENCY=1``
and the operation cache off. Both take turns within one run, so that the ratio holds on a noisy machine; CPU
time is that of all the server's processes, from /proc.
"""

import os
import statistics
import subprocess
import sys
from typing import Annotated

import typer

from bench.pictures import picture
from bench.processes import Server
from bench.version1 import ask

LOOP = """
import sys, time
import pyvips
pyvips.cache_set_max(0)
with open(sys.argv[1], "rb") as file:
    data = file.read()
width, height = int(sys.argv[2]), int(sys.argv[3])
for line in sys.stdin:
    start = time.process_time()
    for _ in range(int(line)):
        pyvips.Image.thumbnail_buffer(data, width, height=height, size="force").jpegsave_buffer(Q=85)
    print(time.process_time() - start, flush=True)
"""


def main(
    name: Annotated[str, typer.Option("--picture", help="One of bench.pictures.")] = "jpeg-12mp.jpg",
    width: int = 800,
    height: int = 600,
    requests: Annotated[int, typer.Option(help="Requests in a round.")] = 40,
    rounds: int = 5,
) -> None:
    """Print CPU milliseconds a request of both, and the ratio of each round."""
    path = picture(name)
    data = path.read_bytes()
    with (
        Server("--workers", "1", "--log-level", "warning") as server,
        subprocess.Popen(
            [sys.executable, "-c", LOOP, str(path), str(width), str(height)],
            env={**os.environ, "VIPS_CONCURRENCY": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as loop,
    ):
        assert loop.stdin is not None
        assert loop.stdout is not None
        ratios = []
        for number in range(rounds + 1):
            loop.stdin.write(f"{requests}\n")
            loop.stdin.flush()
            bare = float(loop.stdout.readline()) / requests
            before = server.cpu_seconds()
            for _ in range(requests):
                ask(server.port, data, width, height)
            gateway, worker = ((b - a) / requests for a, b in zip(before, server.cpu_seconds(), strict=True))
            if number:  # the first round warms up
                ratios.append((gateway + worker) / bare)
                print(
                    f"round {number}: loop {bare * 1e3:7.2f} ms, gateway {gateway * 1e3:6.2f} ms, "
                    f"worker {worker * 1e3:7.2f} ms, ratio {ratios[-1]:.3f}"
                )
        loop.stdin.close()
    print(f"{name} to {width} × {height}: median ratio {statistics.median(ratios):.3f} of {rounds} rounds")


if __name__ == "__main__":
    typer.run(main)
