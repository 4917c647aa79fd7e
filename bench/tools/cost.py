"""What ``vipsrv.pipeline.cost`` predicts against what a fresh worker process takes.

    python -m bench.tools.cost [--megapixels 6 --megapixels 24] [--only jpeg]

For each kind of image in each size: the memory predicted and measured (the peak of anonymous memory,
sampled from /proc every half millisecond, less that of the idle worker), their ratio, and CPU seconds
predicted and measured. Ends with 1 where a prediction of memory was too low. Images are kept beside
those of ``bench.images``.
"""

import array
import contextlib
import json
import math
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pyvips
import typer

from bench.images import cache_folder, photo
from bench.measuring.processes import anonymous_bytes, cpu_seconds
from vipsrv import pipeline
from vipsrv.options import ResizeOptions
from vipsrv.pipeline.cost import LIGHT, Cost, predict
from vipsrv.pipeline.probe import read_header
from vipsrv.workers.channel import READY_SIZE, REPLY_SIZE, Carrier, JobHead, Operation, ReplyHead

SAMPLE_SECONDS = 0.0005
BLOCK = 1000
Save = Callable[[pyvips.Image, str], None]


@dataclass(frozen=True)
class Kind:
    """How an image of a kind is saved: libvips' saver, its options, and what is done to the scene before."""

    suffix: str
    saver: str
    options: dict[str, Any]
    change: Callable[[pyvips.Image], pyvips.Image] = lambda image: image


def _grey(image: pyvips.Image) -> pyvips.Image:
    return image[1].copy(interpretation="b-w")


def _alpha(image: pyvips.Image) -> pyvips.Image:
    ramp = pyvips.Image.xyz(image.width, image.height)[0] * (255 / image.width)
    return image.bandjoin(ramp.cast("uchar")).copy(interpretation="srgb")


def _deep(image: pyvips.Image) -> pyvips.Image:
    return (image.cast("ushort") * 257).cast("ushort").copy(interpretation="rgb16")


def _float(image: pyvips.Image) -> pyvips.Image:
    return (image.cast("float") / 255).copy(interpretation="scrgb")


def _cmyk(image: pyvips.Image) -> pyvips.Image:
    return image.icc_transform("cmyk", input_profile="srgb")


def _turned(image: pyvips.Image) -> pyvips.Image:
    turned = image.copy()
    turned.set_type(pyvips.GValue.gint_type, "orientation", 6)
    return turned


def _films(image: pyvips.Image) -> pyvips.Image:
    film = image.join(image.invert(), "vertical").copy()
    film.set_type(pyvips.GValue.gint_type, "page-height", image.height)
    return film


_AV1 = {"compression": "av1", "effort": 0}
_TILES = {"tile": True, "tile_width": 256, "tile_height": 256}

KINDS = {
    "jpeg": Kind("jpg", "jpegsave", {"Q": 85, "subsample_mode": "on"}),
    "jpeg-turned": Kind("jpg", "jpegsave", {"Q": 85}, _turned),
    "jpeg-cmyk": Kind("jpg", "jpegsave", {"Q": 85}, _cmyk),
    "jpeg-progressive-420": Kind("jpg", "jpegsave", {"interlace": True, "subsample_mode": "on"}),
    "jpeg-progressive-444": Kind("jpg", "jpegsave", {"interlace": True, "subsample_mode": "off"}),
    "jpeg-progressive-grey": Kind("jpg", "jpegsave", {"interlace": True}, _grey),
    "png": Kind("png", "pngsave", {"compression": 2}),
    "png-grey": Kind("png", "pngsave", {"compression": 2}, _grey),
    "png-alpha": Kind("png", "pngsave", {"compression": 2}, _alpha),
    "png-16": Kind("png", "pngsave", {"compression": 2}, _deep),
    "png-interlaced": Kind("png", "pngsave", {"compression": 2, "interlace": True}),
    "png-interlaced-16": Kind("png", "pngsave", {"compression": 2, "interlace": True}, _deep),
    "gif": Kind("gif", "gifsave", {"effort": 1}),
    "gif-film": Kind("gif", "gifsave", {"effort": 1}, _films),
    "webp": Kind("webp", "webpsave", {"effort": 0}),
    "webp-alpha": Kind("webp", "webpsave", {"effort": 0}, _alpha),
    "webp-lossless": Kind("webp", "webpsave", {"effort": 0, "lossless": True}),
    "webp-lossless-alpha": Kind("webp", "webpsave", {"effort": 0, "lossless": True}, _alpha),
    "webp-film": Kind("webp", "webpsave", {"effort": 0}, _films),
    "avif-420": Kind("avif", "heifsave", _AV1),
    "avif-444": Kind("avif", "heifsave", {**_AV1, "subsample_mode": "off"}),
    "avif-alpha": Kind("avif", "heifsave", _AV1, _alpha),
    "avif-12": Kind("avif", "heifsave", {**_AV1, "bitdepth": 12, "subsample_mode": "off"}, _deep),
    "tiff-strips": Kind("tif", "tiffsave", {}),
    "tiff-strips-alpha": Kind("tif", "tiffsave", {}, _alpha),
    "tiff-strips-16": Kind("tif", "tiffsave", {}, _deep),
    "tiff-strips-float": Kind("tif", "tiffsave", {}, _float),
    "tiff-cmyk": Kind("tif", "tiffsave", {}, _cmyk),
    "tiff-lzw": Kind("tif", "tiffsave", {"compression": "lzw", "predictor": "horizontal"}),
    "tiff-tiles": Kind("tif", "tiffsave", _TILES),
    "tiff-tiles-jpeg": Kind("tif", "tiffsave", {**_TILES, "compression": "jpeg"}),
    "tiff-tiles-2048": Kind(
        "tif", "tiffsave", {"compression": "deflate", "tile": True, "tile_width": 2048, "tile_height": 2048}
    ),
    # Rows of a strip are given as the height of a tile; so many that there is one strip.
    "tiff-one-strip-deflate": Kind("tif", "tiffsave", {"compression": "deflate", "tile_height": 32_768}),
    "tiff-one-strip-jpeg": Kind("tif", "tiffsave", {"compression": "jpeg", "tile_height": 32_768}),
}
"""Every kind of image that a way of decoding is predicted for."""

RESULTS: dict[str, dict[str, Any]] = {
    "jpeg": {},
    "jpeg from a turned one": {},
    "png": {"format": "png"},
    "webp": {"format": "webp"},
    "webp-lossless": {"format": "webp", "lossless": True},
    "avif": {"format": "avif"},
    "tiff": {"format": "tiff"},
    "gif": {"format": "gif"},
}
"""Every kind of result; of those that this pipeline does not make the table says so."""


def kept(name: str, megapixels: float) -> Path:
    """The file of a kind in a size, 3 to 2, made now if it is not there."""
    kind = KINDS[name]
    height = round(math.sqrt(megapixels * 1e6 / 1.5))
    width = round(1.5 * height)
    folder = cache_folder() / "cost"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{width}x{height}.{kind.suffix}"
    if not path.exists():
        block = photo(BLOCK, BLOCK, 1, 6.0, 1.5).copy_memory()
        scene = block.replicate(-(-width // BLOCK), -(-height // BLOCK)).crop(0, 0, width, height)
        unfinished = path.with_name(f"unfinished-{path.name}")
        pyvips.Operation.call(kind.saver, kind.change(scene), str(unfinished), **kind.options)
        unfinished.rename(path)
    return path


@dataclass(frozen=True)
class Taken:
    """Bytes of anonymous memory beyond the idle worker's, seconds of CPU, the refusal if there was one."""

    memory: int
    seconds: float
    refusal: str


class Worker:
    """A fresh worker process, as the gateway starts it, for one job."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair()
        config = {"max_pixels": 10**10, "max_output_pixels": 10**9, "quality": 85, "parent": os.getpid()}
        config |= {"job_memory": 1 << 36, "max_expansion": 1 << 30}
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "vipsrv.workers.child"),
                    *("--socket", str(theirs.fileno()), "--config", json.dumps(config)),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=os.environ | {"VIPS_CONCURRENCY": "1", "MALLOC_ARENA_MAX": "2"},
            )
        self._receive(READY_SIZE)

    def run(self, path: Path, options: dict[str, Any]) -> Taken:
        """One job, the image lent as a descriptor."""
        pid = self._process.pid
        data, size = json.dumps(options).encode(), path.stat().st_size
        head = JobHead(
            operation=Operation.RESIZE,
            job_id=1,
            carrier=Carrier.DESCRIPTOR,
            admitted=True,
            options_size=len(data),
            image_size=size,
        )
        idle, seconds = anonymous_bytes(pid), cpu_seconds(pid)
        with path.open("rb") as file, sampled(pid) as peak:
            descriptor = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()]))
            self._channel.sendmsg([head.pack() + data], [descriptor])
            reply = ReplyHead.unpack(self._receive(REPLY_SIZE), image_size=size)
        refusal = "" if reply.error is None else str(reply.error)
        return Taken(peak[0] - idle, cpu_seconds(pid) - seconds, refusal)

    def close(self) -> None:
        """End it."""
        self._channel.close()
        self._process.kill()
        self._process.wait()

    def _receive(self, size: int) -> bytes:
        data = self._channel.recv(size, socket.MSG_WAITALL)
        if len(data) < size:
            raise SystemExit("the worker died")
        return data


@contextlib.contextmanager
def sampled(pid: int) -> Iterator[list[int]]:
    """The most anonymous memory of a process while the ``with`` lasts, in a list of one."""
    peak, over = [anonymous_bytes(pid)], threading.Event()

    def sample() -> None:
        while not over.wait(SAMPLE_SECONDS):
            peak[0] = max(peak[0], anonymous_bytes(pid))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def compare(title: str, path: Path, options: dict[str, Any]) -> bool:
    """Print a line; whether the memory predicted was enough."""
    with path.open("rb") as file:
        upload = pipeline.Upload.from_descriptor(file.fileno(), path.stat().st_size)
        told: Cost = predict(upload, read_header(upload), (ResizeOptions(**options),))
    worker = Worker()
    try:
        taken = worker.run(path, options)
    finally:
        worker.close()
    size = f"{options['width']} x {options['height']}"
    if taken.refusal:
        print(f"{title:38} {size:>13}  {taken.refusal}", flush=True)
        return True
    ratio = told.memory / max(1, taken.memory)
    enough = ratio >= 1
    remark = "" if enough else "  TOO LOW"
    if ratio > 2 and taken.memory > LIGHT:
        remark = "  more than twice"
    print(
        f"{title:38} {size:>13} {told.memory / 1e6:9.1f} {taken.memory / 1e6:9.1f} {ratio:6.2f}"
        f" {told.seconds:9.3f} {taken.seconds:9.2f}{remark}",
        flush=True,
    )
    return enough


def main(
    megapixels: Annotated[list[float] | None, typer.Option(help="Sizes of the sources; 6 and 24.")] = None,
    only: Annotated[str, typer.Option(help="Only what has this in its name.")] = "",
) -> None:
    """Print a line for each kind of source in each size, and for each kind of result."""
    pipeline.start()
    enough = True
    print(f"{'':38} {'':13} {'MB':>9} {'':9} {'':6} {'CPU s':>9}")
    print(
        f"{'source':38} {'result':>13} {'predicted':>9} {'measured':>9} {'ratio':>6} {'predicted':>9} {'':9}"
    )
    sizes = megapixels or [6.0, 24.0]
    for name in KINDS:
        for size in sizes:
            if only in name:
                path = kept(name, size)
                enough &= compare(f"{name} {size:g} MP", path, {"width": 800, "height": 600})
    for name, options in RESULTS.items():
        if only in name:
            path = kept("jpeg-turned" if "turned" in name else "jpeg", max(sizes))
            for width, height in ((800, 600), (4000, 3000)):
                enough &= compare(f"to {name}", path, {"width": width, "height": height, **options})
    raise typer.Exit(0 if enough else 1)


if __name__ == "__main__":
    typer.run(main)
