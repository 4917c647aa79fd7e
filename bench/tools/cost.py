"""Compare the cost that ``vipsrv.pipeline.cost`` predicts with what a fresh worker process takes.

    python -m bench.tools.cost [--megapixels 6 --megapixels 24] [--only jpeg]

Prints for each kind of image in each size the memory predicted and measured (the peak of anonymous memory,
sampled every half millisecond, less that of the idle worker), their ratio, and the CPU seconds predicted and
measured. The exit code is 1 if a prediction of memory is too low. The images are kept beside those of
``bench.images``.
"""

import array
import json
import math
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pyvips
import typer
from PIL import Image

from bench.images import cache_folder, photo
from bench.measuring.processes import anonymous_bytes, cpu_seconds
from bench.measuring.sampling import Peak
from vipsrv import pipeline
from vipsrv.options import ResizeOptions
from vipsrv.pipeline.cost import LIGHT, Cost, predict
from vipsrv.pipeline.probe import read_header
from vipsrv.worker_config import WorkerConfig
from vipsrv.workers.channel import READY_SIZE, REPLY_SIZE, Carrier, JobHead, Operation, ReplyHead
from vipsrv.workers.launch import worker_command, worker_environment

SAMPLE_SECONDS = 0.0005
BLOCK = 1000

_UNLIMITED = WorkerConfig(
    max_pixels=10**10, max_output_pixels=10**9, job_memory=1 << 36, max_expansion=1 << 30
)
"""Limits that no image of this command reaches."""


@dataclass(frozen=True)
class SourceKind:
    """How one kind of source image is made: libvips' saver, its options, and a change to the scene before.

    ``write`` is used instead of the saver for a format that libvips does not write.
    """

    suffix: str
    saver: str
    options: dict[str, Any]
    change: Callable[[pyvips.Image], pyvips.Image] = lambda image: image
    write: Callable[[pyvips.Image, Path], None] | None = None


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


def _one_bit(image: pyvips.Image) -> pyvips.Image:
    return (image[1] > 128).copy(interpretation="b-w")


def _write_tga(image: pyvips.Image, path: Path, *, encoded: bool) -> None:
    """Write a TGA of 24 or 32 bits by Pillow, by which libvips' rows pass through memory once."""
    mode = "RGBA" if image.hasalpha() else "RGB"
    pixels = Image.frombytes(mode, (image.width, image.height), image.write_to_memory())
    pixels.save(path, "TGA", compression="tga_rle" if encoded else None)


_TGA = partial(_write_tga, encoded=False)
_TGA_RUNS = partial(_write_tga, encoded=True)
_AV1 = {"compression": "av1", "effort": 0}
_TILES = {"tile": True, "tile_width": 256, "tile_height": 256}

KINDS = {
    "jpeg": SourceKind("jpg", "jpegsave", {"Q": 85, "subsample_mode": "on"}),
    "jpeg-turned": SourceKind("jpg", "jpegsave", {"Q": 85}, _turned),
    "jpeg-cmyk": SourceKind("jpg", "jpegsave", {"Q": 85}, _cmyk),
    "jpeg-progressive-420": SourceKind("jpg", "jpegsave", {"interlace": True, "subsample_mode": "on"}),
    "jpeg-progressive-444": SourceKind("jpg", "jpegsave", {"interlace": True, "subsample_mode": "off"}),
    "jpeg-progressive-grey": SourceKind("jpg", "jpegsave", {"interlace": True}, _grey),
    "png": SourceKind("png", "pngsave", {"compression": 2}),
    "png-grey": SourceKind("png", "pngsave", {"compression": 2}, _grey),
    "png-alpha": SourceKind("png", "pngsave", {"compression": 2}, _alpha),
    "png-16": SourceKind("png", "pngsave", {"compression": 2}, _deep),
    "png-interlaced": SourceKind("png", "pngsave", {"compression": 2, "interlace": True}),
    "png-interlaced-16": SourceKind("png", "pngsave", {"compression": 2, "interlace": True}, _deep),
    "png-1": SourceKind("png", "pngsave", {"compression": 2, "bitdepth": 1}, _one_bit),
    "png-interlaced-1": SourceKind(
        "png", "pngsave", {"compression": 2, "bitdepth": 1, "interlace": True}, _one_bit
    ),
    "gif": SourceKind("gif", "gifsave", {"effort": 1}),
    "gif-film": SourceKind("gif", "gifsave", {"effort": 1}, _films),
    "webp": SourceKind("webp", "webpsave", {"effort": 0}),
    "webp-alpha": SourceKind("webp", "webpsave", {"effort": 0}, _alpha),
    "webp-lossless": SourceKind("webp", "webpsave", {"effort": 0, "lossless": True}),
    "webp-lossless-alpha": SourceKind("webp", "webpsave", {"effort": 0, "lossless": True}, _alpha),
    "webp-film": SourceKind("webp", "webpsave", {"effort": 0}, _films),
    "avif-420": SourceKind("avif", "heifsave", _AV1),
    "avif-444": SourceKind("avif", "heifsave", {**_AV1, "subsample_mode": "off"}),
    "avif-alpha": SourceKind("avif", "heifsave", _AV1, _alpha),
    "avif-12": SourceKind("avif", "heifsave", {**_AV1, "bitdepth": 12, "subsample_mode": "off"}, _deep),
    "tiff-strips": SourceKind("tif", "tiffsave", {}),
    "tiff-strips-alpha": SourceKind("tif", "tiffsave", {}, _alpha),
    "tiff-strips-16": SourceKind("tif", "tiffsave", {}, _deep),
    "tiff-strips-float": SourceKind("tif", "tiffsave", {}, _float),
    "tiff-cmyk": SourceKind("tif", "tiffsave", {}, _cmyk),
    "tiff-lzw": SourceKind("tif", "tiffsave", {"compression": "lzw", "predictor": "horizontal"}),
    "tiff-tiles": SourceKind("tif", "tiffsave", _TILES),
    "tiff-tiles-jpeg": SourceKind("tif", "tiffsave", {**_TILES, "compression": "jpeg"}),
    "tiff-tiles-2048": SourceKind(
        "tif", "tiffsave", {"compression": "deflate", "tile": True, "tile_width": 2048, "tile_height": 2048}
    ),
    # tile_height is the number of rows in a strip: more than the image has, so there is one strip.
    "tiff-one-strip-deflate": SourceKind(
        "tif", "tiffsave", {"compression": "deflate", "tile_height": 32_768}
    ),
    "tiff-one-strip-jpeg": SourceKind("tif", "tiffsave", {"compression": "jpeg", "tile_height": 32_768}),
    "tga": SourceKind("tga", "", {}, write=_TGA),
    "tga-alpha": SourceKind("tga", "", {}, _alpha, write=_TGA),
    "tga-runs": SourceKind("tga", "", {}, write=_TGA_RUNS),
    "tga-runs-alpha": SourceKind("tga", "", {}, _alpha, write=_TGA_RUNS),
}
"""Every kind of image that is predicted in a way of its own."""

RESULTS: dict[str, dict[str, Any]] = {
    "jpeg": {},
    "jpeg from a turned one": {},
    "png": {"format": "png"},
    "webp": {"format": "webp"},
    "webp-lossless": {"format": "webp", "lossless": True},
    "avif": {"format": "avif"},
    "avif, effort 0": {"format": "avif", "effort": 0},
    "avif, effort 4": {"format": "avif", "effort": 4},
    "avif-lossless": {"format": "avif", "lossless": True},
    "tiff": {"format": "tiff"},
    "gif": {"format": "gif"},
}
"""Every kind of result. For one that the pipeline cannot make, the table shows the refusal."""


def kept(name: str, megapixels: float) -> Path:
    """The file of one kind and size, 3 to 2; made now if it is missing."""
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
        if kind.write is None:
            pyvips.Operation.call(kind.saver, kind.change(scene), str(unfinished), **kind.options)
        else:
            kind.write(kind.change(scene), unfinished)
        unfinished.rename(path)
    return path


@dataclass(frozen=True)
class Taken:
    """Bytes of anonymous memory above the idle worker's, CPU seconds, and the refusal if there was one."""

    memory: int
    seconds: float
    refusal: str


class Worker:
    """A fresh worker process for one job, started as the gateway starts it."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                worker_command([theirs.fileno()], _UNLIMITED),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=worker_environment(),
            )
        self._receive(READY_SIZE)

    def run(self, path: Path, options: dict[str, Any]) -> Taken:
        """Run one job, with the image passed as a descriptor."""
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
        with path.open("rb") as file, Peak([pid], SAMPLE_SECONDS) as peak:
            descriptor = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()]))
            self._channel.sendmsg([head.pack() + data], [descriptor])
            reply = ReplyHead.unpack(self._receive(REPLY_SIZE), image_size=size)
        refusal = "" if reply.error is None else str(reply.error)
        return Taken(max(peak.bytes, idle) - idle, cpu_seconds(pid) - seconds, refusal)

    def close(self) -> None:
        """End the process."""
        self._channel.close()
        self._process.kill()
        self._process.wait()

    def _receive(self, size: int) -> bytes:
        data = self._channel.recv(size, socket.MSG_WAITALL)
        if len(data) < size:
            raise SystemExit("the worker died")
        return data


def compare(title: str, path: Path, options: dict[str, Any]) -> bool:
    """Print a line; return whether the predicted memory was enough."""
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
    megapixels: Annotated[
        list[float] | None, typer.Option(help="Sizes of the sources. [default: 6, 24]")
    ] = None,
    only: Annotated[str, typer.Option(help="Only kinds with this in their name.")] = "",
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
