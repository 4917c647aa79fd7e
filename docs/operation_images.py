"""A hook of MkDocs: images that show what an operation does, made by the pipeline while the site is built.

A page may hold lines of this form; those without another line between them are shown beside each other::

    <!-- operation: width=200&crop=0.25,0.25,0.5,0.5 -->     the result of these parameters of /resize
    <!-- operation(framed): width=200&trim=10 -->            the same of another of the ``IMAGES``

The format is WebP unless the line names another.
"""

import math
import posixpath
import re
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl

import pyvips

from vipsrv import pipeline
from vipsrv.options import ResizeRequest
from vipsrv.pipeline.watermarks import use_watermarks
from vipsrv.server.api.parameters import ResizeParameters
from vipsrv.worker_config import WorkerConfig

_LINE = r"<!-- operation(?:\((\w+)\))?: (\S+) -->"
_BLOCK = re.compile(rf"^{_LINE}(?:\n{_LINE})*$", re.MULTILINE)
_FOLDER = "assets/operations"
_WIDTH, _HEIGHT = 600, 400


def landscape() -> pyvips.Image:
    """Draw a sky with a sun, two hills and a lake: nothing in it looks alike in two places."""
    places = pyvips.Image.xyz(_WIDTH, _HEIGHT)
    x, y = places[0] / _WIDTH, places[1] / _HEIGHT
    image = _blend(y.linear(1.6, 0), (70, 130, 205), (250, 225, 190))
    image = _over(image, (248, 205, 70), 0.13 - ((x - 0.68) ** 2 * 2.25 + (y - 0.3) ** 2) ** 0.5)
    for height, swing, waves, shift, colour in (
        (0.62, 0.1, 1.1, 0.9, (96, 130, 120)),
        (0.76, 0.07, 1.7, 2.6, (58, 104, 70)),
    ):
        ridge = (x * (2 * math.pi * waves * 180 / math.pi) + shift * 180 / math.pi).sin() * swing
        image = _over(image, colour, y - height - ridge)
    image = _over(image, (64, 120, 160), y - 0.87)
    for left, top in ((0.16, 0.5), (0.24, 0.56), (0.31, 0.53)):
        tree = (y - top) * 0.35 - (x - left).abs()
        image = _over(image, (30, 70, 48), (tree < top + 0.16 - y).ifthenelse(tree, top + 0.16 - y))
    return image.cast("uchar").copy(interpretation="srgb")


def framed() -> pyvips.Image:
    """The landscape within an uneven white border."""
    inner = landscape().resize(0.8)
    return inner.embed(40, 24, inner.width + 150, inner.height + 110, extend="white")


def logo() -> pyvips.Image:
    """A ring of white with transparency, for watermarks."""
    places = pyvips.Image.xyz(240, 240)
    distance = ((places[0] - 119.5) ** 2 + (places[1] - 119.5) ** 2) ** 0.5
    ring = _limited((20 - (distance - 90).abs()) / 4).linear(255, 0).cast("uchar")
    white = ring.new_from_image([255, 255, 255]).copy(interpretation="srgb")
    return white.bandjoin(ring)


IMAGES: dict[str, Callable[[], pyvips.Image]] = {"landscape": landscape, "framed": framed}


def on_files(files: Any, *, config: Any) -> Any:
    """Add the images of all pages to the site."""
    file_class: Any = import_module("mkdocs.structure.files").File  # installed only where the site is built

    pages = [file for file in files if file.src_uri.endswith(".md")]
    for image, query in {found for page in pages for found in requests(page.content_string)}:
        files.append(file_class.generated(config, _path(image, query), content=render(image, query)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Replace the lines of a page by its images."""
    return expand(markdown, page.file.src_uri)


def requests(markdown: str) -> list[tuple[str, str]]:
    """Return the image and the parameters of each line of a page."""
    return [
        (image or "landscape", query) for image, query in re.findall(rf"^{_LINE}$", markdown, re.MULTILINE)
    ]


def expand(markdown: str, here: str) -> str:
    """Return ``markdown`` of the page ``here`` with its images instead of the lines."""

    def table(match: re.Match[str]) -> str:
        shown = requests(match[0])
        images = [posixpath.relpath(_path(*one), posixpath.dirname(here)) for one in shown]
        cells = [f"![{query}]({path})" for path, (_, query) in zip(images, shown, strict=True)]
        names = [f"`{re.sub(r'(^|&)width=[0-9]+(&|$)', '', query) or 'the image'}`" for _, query in shown]
        return "\n".join(f"| {' | '.join(row)} |" for row in (cells, [":---:"] * len(shown), names))

    return _BLOCK.sub(table, markdown)


def render(image: str, query: str) -> bytes:
    """Return the result for one of the ``IMAGES`` and parameters of ``/resize``. Raises ``RequestError``."""
    parameters = ResizeParameters()
    for name, value in parse_qsl(query, strict_parsing=True):
        parameters.add(name, value)
    meta = {"format": "webp", **parameters.meta(None)}
    (options,) = ResizeRequest.from_meta(meta).outputs
    upload = pipeline.Upload.from_memory(_encoded(image))
    return pipeline.resize(upload, [options], config=WorkerConfig()).outputs[0].data


@cache
def _encoded(image: str) -> bytes:
    pipeline.start()
    use_watermarks({"logo": logo()})
    data: bytes = IMAGES[image]().pngsave_buffer()
    return data


def _path(image: str, query: str) -> str:
    return f"{_FOLDER}/{sha256(f'{image}?{query}'.encode()).hexdigest()[:12]}.webp"


def _blend(share: pyvips.Image, first: tuple[int, ...], second: tuple[int, ...]) -> pyvips.Image:
    """Return a gradient: the first colour where ``share`` is 0, the second where it is 1."""
    part = _limited(share)
    differences = [to - of for of, to in zip(first, second, strict=True)]
    return part.bandjoin([part, part]).linear(differences, list(first))


def _over(image: pyvips.Image, colour: tuple[int, ...], inside: pyvips.Image) -> pyvips.Image:
    """Paint a colour where ``inside`` is more than 0, with a soft edge of about a pixel."""
    share = _limited(inside.linear(_HEIGHT, 0.5))
    return image * (1 - share) + share.bandjoin([share, share]).linear(list(colour), [0, 0, 0])


def _limited(share: pyvips.Image) -> pyvips.Image:
    return (share > 1).ifthenelse(1, (share < 0).ifthenelse(0, share))
