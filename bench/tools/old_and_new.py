"""Compare the CPU time of this tree's server with that of another checkout, case by case.

    python -m bench.tools.old_and_new OLD_CHECKOUT [FILE …] [--rounds 7] [--requests 10] [--format webp]

Both servers run one worker and take turns, so that both meet the same machine. CPU is user and system time of
all processes of a server, in ms a request, the median of the rounds; the ratio is the median of the rounds'
ratios. Results are 800 pixels wide, as high as is proportional; their SSIM is that to the image decoded in
full and reduced with Lanczos (``bench.image_quality``). The old server runs by ``OLD_CHECKOUT/.venv`` if
there is one.
"""

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import pyvips
import typer

from bench.image_quality import decode, reference, ssim
from bench.images import image_file
from bench.measuring.server import Server
from bench.tools.same_results import old_python
from bench.wire import Connection
from vipsrv.options import Format
from vipsrv.protocol import FIRST_ERROR_STATUS, Kind

CASES = ("webp-6mp.webp", "png-3mp.png", "jpeg-12mp.jpg")
"""The images of ``bench.images`` that are used if no files are given."""

WIDTH = 800
_SETTINGS = ("--workers", "1", "--log-level", "error")


def target(path: Path) -> tuple[int, int]:
    """Width and height of the result for the file."""
    image = pyvips.Image.new_from_file(str(path))
    width, height = image.width, image.height
    if image.get_typeof("orientation") and image.get("orientation") >= 5:
        width, height = height, width
    return WIDTH, max(1, round(WIDTH * height / width))


class Side:
    """One of the two servers, with a connection to it."""

    def __init__(self, server: Server, connection: Connection) -> None:
        self._server = server
        self._connection = connection
        self.milliseconds: list[float] = []
        self.result = b""

    def measure(self, image: bytes, options: dict[str, object], requests: int) -> float:
        """Send the image ``requests`` times; return and note the CPU time of a request in ms."""
        before = sum(self._server.cpu_seconds())
        for _ in range(requests):
            reply = self._connection.request(Kind.RESIZE, options, image)
            if reply.status >= FIRST_ERROR_STATUS:
                raise SystemExit(f"a server answered {reply.status}: {reply.meta!r}")
            self.result = bytes(reply.body)
        self.milliseconds.append((sum(self._server.cpu_seconds()) - before) * 1e3 / requests)
        return self.milliseconds[-1]


def compare(path: Path, sides: Sequence[Side], format_: Format, rounds: int, requests: int) -> str:
    """Measure one file, and return its line of the table."""
    image = path.read_bytes()
    width, height = target(path)
    options: dict[str, object] = {"width": width, "height": height, "format": format_.value}
    for side in sides:
        side.measure(image, options, 2)
        side.milliseconds.clear()
    ratios = []
    for number in range(rounds):
        turn = sides if number % 2 else sides[::-1]
        took = {side: side.measure(image, options, requests) for side in turn}
        ratios.append(took[sides[1]] / took[sides[0]])
    wanted = reference(path, width, height)
    cells = [
        f"{statistics.median(side.milliseconds):.1f} | {len(side.result)} | "
        f"{ssim(decode(side.result), wanted):.4f}"
        for side in sides
    ]
    name = f"{path.name} → {width} × {height} {format_}"
    return f"| {name} | {' | '.join(cells)} | {statistics.median(ratios):.3f} |"


def main(
    old_checkout: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="A checkout of the commit to compare with.")
    ],
    files: Annotated[list[Path] | None, typer.Argument(exists=True, help="[default: drawn images]")] = None,
    format_: Annotated[Format, typer.Option("--format", help="Of the results.")] = Format.JPEG,
    rounds: Annotated[int, typer.Option(min=1)] = 7,
    requests: Annotated[int, typer.Option(min=1, help="Of each server in a round.")] = 10,
) -> None:
    """Print a table: CPU ms, bytes and SSIM of the old server and of the new one, and the ratio of CPU."""
    paths = files or [image_file(name) for name in CASES]
    with ExitStack() as stack:
        checkout = old_checkout.resolve()
        python = str(Path(old_python(checkout, None)).absolute())
        servers = [Server(*_SETTINGS, python=python, directory=checkout), Server(*_SETTINGS)]
        for server in servers:
            stack.enter_context(server)
        sides = [Side(server, stack.enter_context(Connection(server.port))) for server in servers]
        print("| image | old ms | bytes | SSIM | new ms | bytes | SSIM | CPU new / old |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        for path in paths:
            print(compare(path, sides, format_, rounds, requests), flush=True)


if __name__ == "__main__":
    typer.run(main)
