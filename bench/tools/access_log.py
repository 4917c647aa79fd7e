"""Compare the gateway's CPU time per request with a line for each request in the log, and without.

    python -m bench.tools.access_log [--connections 8] [--seconds 3] [--rounds 9]

Two servers take turns within one run, and the difference is the median of those of the pairs. The CPU time is
that of the whole gateway process, with the thread that renders and writes the lines. The log is a file in
--folder.
"""

import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from bench.arguments import known_image
from bench.images import image_file
from bench.measuring.server import Server
from bench.tools.gateway import measure_round


def main(
    name: Annotated[
        str, typer.Option("--image", help="One of bench.images.", callback=known_image)
    ] = "jpeg-0.3mp.jpg",
    connections: Annotated[int, typer.Option(min=1)] = 8,
    seconds: Annotated[float, typer.Option(min=0.1, help="Duration of each round.")] = 3.0,
    rounds: Annotated[int, typer.Option(min=1)] = 9,
    form: Annotated[str, typer.Option(help="The --log-format of the server that logs.")] = "json",
    folder: Annotated[Path | None, typer.Option(help="Folder of the log file.")] = None,
) -> None:
    """Print CPU microseconds per request for each pair, and the median of the differences.

    Raises ``Refused`` and ``OSError`` if a request fails.
    """
    image = image_file(name).read_bytes()
    with ExitStack() as stack:
        log = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder))) / "log"
        quiet = stack.enter_context(Server("--workers", "2", "--access-log", "off"))
        logging = stack.enter_context(
            Server("--workers", "2", "--access-log", "all", "--log-format", form, "--log-file", str(log))
        )
        differences = []
        for number in range(rounds + 1):
            pair = {quiet: 0.0, logging: 0.0}
            for server in (quiet, logging) if number % 2 else (logging, quiet):
                pair[server] = 1e3 * measure_round(server, image, 200, 150, connections, seconds)[0]
            if number:  # the first round is a warm-up
                differences.append(pair[logging] - pair[quiet])
                print(
                    f"round {number}: without {pair[quiet]:.1f} us, with {pair[logging]:.1f} us, "
                    f"difference {differences[-1]:.1f} us"
                )
        lines = log.read_bytes().count(b'"event":"request"') if form == "json" else 0
    print(f"median of the differences: {statistics.median(differences):.1f} us a request ({lines} lines)")


if __name__ == "__main__":
    typer.run(main)
