"""Measure the CPU time that the live figures cost for each request, and for each second of a watcher.

    python -m bench.tools.live_figures [--rounds 30]

Counts requests whose times are spread like those of a real server, in one process without a server.
"""

import json
import random
import statistics
import time
from typing import Annotated

import typer

from vipsrv.options import ImageInfo, OutputInfo
from vipsrv.server.logs.request_line import RequestLine
from vipsrv.server.ops import live_view
from vipsrv.server.ops.live import LiveFigures
from vipsrv.server.timeline import Timeline

REQUESTS = 2000

_SOURCE = ImageInfo(
    format="jpeg", width=4000, height=3000, pages=1, has_alpha=False, orientation=1, size=2_712_345
)
_RESULT = OutputInfo(width=800, height=600, format="jpeg", quality=85, size=81_234)


def main(rounds: Annotated[int, typer.Option(min=1)] = 30) -> None:
    """Print CPU microseconds per request, and milliseconds for the figures that a watcher gets."""
    choice = random.Random(7)
    lines = [_line(choice) for _ in range(REQUESTS)]
    now = time.monotonic()
    figures = LiveFigures(clock=lambda: now)
    per_request = []
    for _ in range(rounds):
        now += 1
        begin = time.process_time()
        for line in lines:
            figures.log(line)
        per_request.append((time.process_time() - begin) / REQUESTS * 1e6)
    now += 1
    print(f"median of {rounds} rounds: {statistics.median(per_request):.2f} us a request")
    begin = time.process_time()
    recent = figures.recent()
    columns = live_view.columns([recent])
    print(
        f"figures of a second: {(time.process_time() - begin) * 1e3:.2f} ms, {len(json.dumps(recent))} bytes"
    )
    begin = time.process_time()
    history = figures.history()
    live_view.columns([history])
    print(f"history for a new watcher: {(time.process_time() - begin) * 1e3:.2f} ms")
    assert columns["ok"][-1] == REQUESTS


def _line(choice: random.Random) -> RequestLine:
    received = 1000 + choice.lognormvariate(-6, 1)
    started = received + choice.lognormvariate(-7, 1)
    ended = started + choice.lognormvariate(-5, 0.6)
    return RequestLine(
        connection=1,
        peer=("127.0.0.1", 1),
        identity=None,
        version=2,
        tls=False,
        kind="resize",
        request_id=1,
        image_size=_SOURCE.size,
        timeline=Timeline(1000, received, received, started, ended, ended),
        source=_SOURCE,
        outputs=(_RESULT,),
        worker=1,
        sent=ended + 1e-4,
    )


if __name__ == "__main__":
    typer.run(main)
