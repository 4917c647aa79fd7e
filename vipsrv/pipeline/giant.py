"""Large TIFFs the shorter way: libvips decodes a TIFF in one thread, by copies, and 400 megapixels take long.

- Not compressed: the rows of the file are the picture, and several threads read it where it is mapped.
- Compressed in tiles: the result is made in columns, each in a thread and with a loader of its own, for one
  loader decodes one tile at a time. One thread alone is a fifth faster with ``thumbnail``.

Both give pixel for pixel what ``thumbnail`` does. They are for uploads in files, and for pictures that need
nothing but a reduction; ``None`` stands for all others.
"""

from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import reduce

import pyvips

from vipsrv.pipeline import layout, libvips
from vipsrv.pipeline.calls import shape
from vipsrv.pipeline.direct import FIRST_TURNED, is_simple, reduce_to, upright
from vipsrv.pipeline.job import Job
from vipsrv.pipeline.rows import Layout, read_rows
from vipsrv.pipeline.stopping import stop_when
from vipsrv.pipeline.threads import several_threads

_LEAST_TILES = 4
"""Tiles across that a column has at least: each decodes one or two of its neighbours', too."""

_MOST_PIXELS = 8_000_000
"""Of the result: it is held in memory, twice."""

_AVERAGES_OVERLAP = 4, 12
"""Factors of a reduction between which rows are better read in order, and averaged once: each of the
result's strips needs averages of the next one, too. Otherwise four threads take twice the time and three
times the CPU for 400 megapixels to 5,000 × 3,750; to 1,600 × 1,200, two thirds of the time."""

_SHAPE = {"width", "height", "bands", "format", "coding", "interpretation"}
_PLACE = {"xoffset", "yoffset", "xres", "yres", "filename"}
"""What an image has by itself, and not as metadata."""


def reduce_giant(image: pyvips.Image, job: Job, width: int, height: int) -> pyvips.Image | None:
    """The picture in ``width`` × ``height`` pixels, upright, its colours as they are.

    The size is that of the viewer and not above the picture's own. Raises ``pyvips.Error`` and
    ``CorruptImage``.
    """
    info = job.header.info
    if info.format != "tiff" or job.upload.memory is not None or image is not job.header.image:
        return None
    # Of a pyramid thumbnail would not decode the largest level.
    if info.pages > 1 or job.page or image.get_typeof("n-subifds") or not is_simple(image):
        return None
    if info.orientation >= FIRST_TURNED:
        width, height = height, width
    rows = _rows(image, job)
    if rows is None:
        reduced = None if job.header.is_own else _in_columns(job, width, height)
    else:
        if job.threads > 1 and not _AVERAGES_OVERLAP[0] <= info.height / height < _AVERAGES_OVERLAP[1]:
            # The loader's mark: threads would wait for each other to read them in order.
            rows.remove("vips-sequential")
        reduced = reduce_to(rows, width, height)
    return None if reduced is None else upright(reduced, info)


def _rows(image: pyvips.Image, job: Job) -> pyvips.Image | None:
    """The whole picture, read from the mapped file as it is computed."""
    width, height, bands, _, interpretation = shape(image)
    start = layout.tiff_rows_start(job.upload, bands)
    if start is None:
        return None
    stride = width * bands
    rows = Layout(offset=start, stride=stride, used=stride, height=height, pixel=bands)
    picture = read_rows(job.upload.view(), rows, "tiff", tolerant=False)
    return _with_metadata(
        picture.copy(interpretation=interpretation, xres=image.xres, yres=image.yres), image
    )


def _with_metadata(picture: pyvips.Image, source: pyvips.Image) -> pyvips.Image:
    fields = [name for name in source.get_fields() if name not in _SHAPE | _PLACE]
    for name in fields:
        picture.set_type(source.get_typeof(name), name, source.get(name))
    return picture


def _in_columns(job: Job, width: int, height: int) -> pyvips.Image | None:
    """The reduced picture in memory, by the job's threads."""
    block = layout.tiff_block(job.upload, 0)
    if block is None or not block.is_tile or width * height > _MOST_PIXELS:
        return None
    count = min(job.threads, width, job.header.info.width // (_LEAST_TILES * max(1, block.width)))
    if count <= 1:
        return None
    view = job.upload.view()
    columns = []
    for number in range(count):
        left, right = width * number // count, width * (number + 1) // count
        source = pyvips.Source.new_from_memory(view)
        whole = reduce_to(_open(source, job), width, height)
        columns.append(whole.crop(left, 0, right - left, height))
        if job.watch is not None:
            stop_when(columns[-1], job.watch)
    # The threads are these; each pipeline has one of its own.
    with several_threads(1), ThreadPoolExecutor(count) as executor:
        computing = [executor.submit(column.copy_memory) for column in columns]
        done, others = wait(computing, return_when=FIRST_EXCEPTION)
        if others:
            for column in columns:
                column.set_kill(True)
    for column in done:
        column.result()  # raises what went wrong first, before what was stopped for that
    if job.header.fail_on != "none" and libvips.complaint():
        # It goes on after a damaged tile. Told now, for joining forgets it.
        raise pyvips.Error("a tile cannot be decoded")
    return reduce(lambda left, right: left.join(right, "horizontal"), [one.result() for one in computing])


def _open(source: pyvips.Source, job: Job) -> pyvips.Image:
    # Sequential access would decode whole rows of tiles for each column.
    return pyvips.Operation.call("tiffload_source", source, access="random", fail_on=job.header.fail_on)
