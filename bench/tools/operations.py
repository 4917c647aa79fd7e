"""Compare the CPU time of each operation with that of the same in sharp, on the same image.

    python -m bench.tools.operations [CASE …] [--rounds 7] [--requests 8]

Needs Node and sharp (``python -m bench.tools.install_peers sharp``). A server of vipsrv with one worker and
sharp in a Node server with one thread take turns, a round of each, so that both meet the same machine. CPU is
user and system time of all processes of a server, in ms a request: the median of the rounds; the ratio is the
median of the rounds' ratios. Results are JPEGs of quality 85 with the standard's Huffman tables, unless the
case names another format. SSIM is that of the two results to each other: it shows that both did the same.
"""

import json
import os
import statistics
import tempfile
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from PIL import Image, ImageDraw, ImageOps

from bench.baselines.peers.http_client import HttpConnection, request_bytes
from bench.baselines.peers.sharp import FOLDER, Sharp
from bench.image_quality import decode, ssim
from bench.images import image_file
from bench.measuring.server import Server
from bench.wire import Connection
from vipsrv.protocol import FIRST_ERROR_STATUS, Kind

LIMIT = 1.10
"""The most of sharp's CPU time that an operation may take."""

WIDTH, HEIGHT = 800, 600
LARGE, SMALL, PNG = "jpeg-12mp.jpg", "jpeg-1.9mp.jpg", "png-3mp.png"
FRAMES, FRAME_SIZE = 20, (480, 360)

_JPEG: list[Any] = ["toFormat", "jpeg", {"quality": 85, "optimiseCoding": False}]
_WEBP: list[Any] = ["toFormat", "webp", {"quality": 80}]
_FILL: list[Any] = ["resize", WIDTH, HEIGHT, {"fit": "fill"}]
_SIZE: dict[str, Any] = {"width": WIDTH, "height": HEIGHT}
_WHITE = {"background": "#ffffff"}

Calls = Sequence[Sequence[Any]]
"""Methods of sharp with their arguments, in the order of the calls."""


@dataclass(frozen=True, slots=True)
class Case:
    """An image of ``bench.images`` or ``MADE``, our options, and the calls of sharp that do the same."""

    image: str
    options: Mapping[str, Any]
    calls: Calls


def watermark() -> bytes:
    """Return the overlay: a PNG of 200 × 80 pixels, partly transparent."""
    image = Image.new("RGBA", (200, 80), (0, 0, 0, 0))
    ImageDraw.Draw(image).rounded_rectangle((4, 4, 195, 75), 20, (30, 60, 200, 160), (255, 255, 255, 220), 4)
    data = BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def animation() -> bytes:
    """Return an animated GIF of ``FRAMES`` frames, each of them a photograph with a disc that moves."""
    with Image.open(image_file(SMALL)) as photograph:
        still = photograph.resize(FRAME_SIZE)
    frames = []
    for number in range(FRAMES):
        frame = still.copy()
        ImageDraw.Draw(frame).ellipse((number * 20, 100, number * 20 + 60, 160), (220, 30, 30))
        frames.append(frame.quantize(64))
    data = BytesIO()
    frames[0].save(data, "GIF", save_all=True, append_images=frames[1:], duration=80, loop=0)
    return data.getvalue()


def bordered() -> bytes:
    """Return a JPEG of the photograph with a white border, for ``trim``."""
    with Image.open(image_file(SMALL)) as photograph:
        image = ImageOps.expand(photograph.convert("RGB"), 64, "white")
    data = BytesIO()
    image.save(data, "JPEG", quality=90)
    return data.getvalue()


MADE = {"animation": animation, "bordered": bordered}
"""Images that this module makes."""


def _rounded_mask(radius: int) -> str:
    svg = f'<svg width="{WIDTH}" height="{HEIGHT}"><rect width="100%" height="100%" rx="{radius}"/></svg>'
    return b64encode(svg.encode()).decode()


def cases() -> dict[str, Case]:
    """Return the cases by name."""
    overlay = {"base64": b64encode(watermark()).decode()}
    square = {"width": 600, "height": 600, "fit": "cover"}
    crop = {"left": 1000, "top": 800, "width": 2000, "height": 1500}
    of_result: dict[str, tuple[dict[str, Any], Calls]] = {
        "none": ({}, []),
        "blur 3": ({"blur": 3}, [["blur", 3]]),
        "blur 20": ({"blur": 20}, [["blur", 20]]),
        "sharpen": ({"sharpen": True}, [["sharpen"]]),
        "sharpen 1": ({"sharpen": 1}, [["sharpen", {"sigma": 1}]]),
        "grey": ({"grey": True}, [["greyscale"]]),
        "modulate": ({"modulate": [1.2, 0.7]}, [["modulate", {"brightness": 1.2, "saturation": 0.7}]]),
        "pad": (
            {"pad": [20, 20, 20, 20]},
            [["extend", {"top": 20, "bottom": 20, "left": 20, "right": 20, **_WHITE}]],
        ),
        "flip": ({"flip": "vertical"}, [["flip"]]),
        "mirror": ({"flip": "horizontal"}, [["flop"]]),
        "watermark": (
            {"watermark": "mark", "watermark_position": "right bottom", "watermark_scale": 0.25},
            [["composite", [{"input": overlay, "gravity": "southeast"}]]],
        ),
    }
    found = {}
    for image in (LARGE, SMALL, PNG):
        for name, (options, further) in of_result.items():
            found[f"{name}, {image}"] = Case(image, _SIZE | options, [_FILL, *further, _JPEG])
    found["crop"] = Case(LARGE, _SIZE | {"crop": list(crop.values())}, [["extract", crop], _FILL, _JPEG])
    for name in ("attention", "entropy"):
        calls: list[Any] = ["resize", 600, 600, {"fit": "cover", "position": name}]
        found[name] = Case(LARGE, square | {"position": name}, [calls, _JPEG])
    for image in (LARGE, PNG):
        found[f"rotate 90, {image}"] = Case(
            image,
            {"width": HEIGHT, "height": WIDTH, "rotate": 90},
            [["rotate", 90], ["resize", HEIGHT, WIDTH, {"fit": "fill"}], _JPEG],
        )
    found["rotate 30"] = Case(SMALL, _SIZE | {"rotate": 30}, [["rotate", 30, _WHITE], _FILL, _JPEG])
    found["trim"] = Case("bordered", _SIZE | {"trim": 10}, [["trim", {"threshold": 10}], _FILL, _JPEG])
    mask: list[Any] = [["composite", [{"input": {"base64": _rounded_mask(40)}, "blend": "dest-in"}]]]
    webp = {"format": "webp", "quality": 80}
    found["rounded"] = Case(SMALL, _SIZE | webp | {"rounded": 40}, [_FILL, *mask, _WEBP])
    found["progressive"] = Case(
        SMALL,
        _SIZE | {"progressive": True},
        [_FILL, ["toFormat", "jpeg", {"quality": 85, "progressive": True}]],
    )
    found["4:4:4"] = Case(
        SMALL,
        _SIZE | {"chroma": "4:4:4"},
        [_FILL, ["toFormat", "jpeg", {"quality": 85, "chromaSubsampling": "4:4:4", "optimiseCoding": False}]],
    )
    found["optimize"] = Case(
        SMALL,
        _SIZE | {"optimize": True},
        [_FILL, ["toFormat", "jpeg", {"quality": 85, "optimiseCoding": True}]],
    )
    found["palette"] = Case(
        SMALL,
        _SIZE | {"format": "png", "palette": True, "quality": 80},
        [_FILL, ["toFormat", "png", {"palette": True, "quality": 80}]],
    )
    found["avif"] = Case(
        SMALL, _SIZE | {"format": "avif", "quality": 60}, [_FILL, ["toFormat", "avif", {"quality": 60}]]
    )
    frame = {"width": 240, "height": 180, "pages": "all"}
    small_frames: list[Any] = [["open", {"animated": True}], ["resize", 240, 180, {"fit": "fill"}]]
    found["frames, webp"] = Case("animation", frame | webp, [*small_frames, _WEBP])
    found["frames, gif"] = Case(
        "animation", frame | {"format": "gif"}, [*small_frames, ["toFormat", "gif", {}]]
    )
    return found


class Side:
    """One of the two servers: what it has taken in each round, in CPU ms a request."""

    def __init__(self, ask: Callable[[], bytes], cpu_seconds: Callable[[], float]) -> None:
        self._ask = ask
        self._cpu_seconds = cpu_seconds
        self.milliseconds: list[float] = []
        self.result = b""

    def measure(self, requests: int) -> float:
        """Ask so many times; note and return the CPU time of a request."""
        before = self._cpu_seconds()
        for _ in range(requests):
            self.result = self._ask()
        self.milliseconds.append((self._cpu_seconds() - before) * 1e3 / requests)
        return self.milliseconds[-1]


def compare(sides: Sequence[Side], rounds: int, requests: int) -> float:
    """Return the median ratio of the first side's time to that of the second."""
    for side in sides:
        side.measure(2)
        side.milliseconds.clear()
    ratios = []
    for number in range(rounds):
        turn = sides if number % 2 else sides[::-1]
        took = {side: side.measure(requests) for side in turn}
        ratios.append(took[sides[0]] / took[sides[1]])
    return statistics.median(ratios)


class SharpOperations(Sharp):
    """sharp in a Node server that runs any chain of its methods, one image at a time."""

    name = "sharp-operations"

    def command(self) -> list[str]:
        """See ``Served``."""
        return ["node", str(FOLDER / "operations.cjs")]

    def environment(self) -> Mapping[str, str]:
        """See ``Served``."""
        return {**super().environment(), "UV_THREADPOOL_SIZE": "1"}


def main(
    names: Annotated[list[str] | None, typer.Argument(metavar="CASE", help="[default: all]")] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 7,
    requests: Annotated[int, typer.Option(min=1, help="Of each server in a round.")] = 8,
) -> None:
    """Print a table, and exit with 1 if a case takes more than 1.1 times the CPU of sharp."""
    sharp = SharpOperations()
    if missing := sharp.missing():
        raise SystemExit(missing)
    chosen = {name: case for name, case in cases().items() if not names or name in names}
    if names and len(chosen) < len(set(names)):
        raise SystemExit(f"the cases are: {'; '.join(cases())}")
    slower = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "mark.png").write_bytes(watermark())
        for made, make in MADE.items():
            (folder / made).write_bytes(make())
        settings = ("--workers", "1", "--log-level", "error", "--watermark", f"mark={folder / 'mark.png'}")
        server = stack.enter_context(Server(*settings))
        stack.enter_context(sharp)
        connection = stack.enter_context(Connection(server.port))
        print(f"{sharp.version()}; {os.cpu_count()} cores\n")
        print("| case | vipsrv ms | bytes | sharp ms | bytes | SSIM | vipsrv / sharp |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
        for name, case in chosen.items():
            path = folder / case.image if case.image in MADE else image_file(case.image)
            image = path.read_bytes()
            query = request_bytes(sharp.port, f"/?{quote(json.dumps(case.calls))}", path, None)
            http = HttpConnection(sharp.port)

            def ask(image: bytes = image, options: Mapping[str, Any] = case.options) -> bytes:
                reply = connection.request(Kind.RESIZE, dict(options), image)
                if reply.status >= FIRST_ERROR_STATUS:
                    raise SystemExit(f"{options}: {reply.status} {reply.meta!r}")
                return bytes(reply.body)

            ours = Side(ask, lambda: sum(server.cpu_seconds()))
            theirs = Side(lambda http=http, query=query: http.ask(query), sharp.cpu_seconds)  # type: ignore[misc]
            with closing(http):
                ratio = compare((ours, theirs), rounds, requests)
            cells = [f"{statistics.median(s.milliseconds):.1f} | {len(s.result)}" for s in (ours, theirs)]
            alike = ssim(decode(ours.result), decode(theirs.result))
            print(f"| {name} | {' | '.join(cells)} | {alike:.3f} | {ratio:.3f} |", flush=True)
            if ratio > LIMIT:
                slower.append(name)
    if slower:
        print(f"\nmore than {LIMIT:g} times sharp: {'; '.join(slower)}")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
