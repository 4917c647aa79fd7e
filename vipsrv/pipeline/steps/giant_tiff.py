"""Resize large TIFFs faster than libvips, which decodes a TIFF in one thread and copies its rows.

- Without compression the rows of the file are the image, and several threads read them from the mapped file.
- With compressed tiles the result is made in columns, each in a thread with its own loader, because
  one loader decodes one tile at a time. A single thread is a fifth faster with ``thumbnail``.

Both give the same pixels as ``thumbnail``. They apply to uploads in files, and to images that only need to be
reduced.
"""

from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import reduce

import pyvips

from vipsrv.pipeline.formats.tiff import TIFF
from vipsrv.pipeline.formats.tiff.layout import block_of, rows_start
from vipsrv.pipeline.header import Decoder
from vipsrv.pipeline.plan import DecodePlan
from vipsrv.pipeline.steps.fast_resize import is_simple, reduce_to, rotate_upright
from vipsrv.pipeline.vips.errors import logged_error
from vipsrv.pipeline.vips.fields import with_metadata
from vipsrv.pipeline.vips.operations import shape
from vipsrv.pipeline.vips.raw_rows import RowLayout, read_rows
from vipsrv.pipeline.vips.stopping import stop_while_computing
from vipsrv.pipeline.vips.threads import use_threads

_MIN_TILES = 4
"""Tiles across in a column. Each column decodes one or two tiles of its neighbours as well."""

_MAX_PIXELS = 8_000_000
"""Pixels of the result, which is held in memory twice."""

_AVERAGES_OVERLAP = 4, 12
"""Between these factors of reduction it is faster to read rows in order and average them once, because each
strip of the result also needs averages of the next one. Otherwise four threads take twice the time and three
times the CPU for 400 megapixels to 5,000 × 3,750; to 1,600 × 1,200 they take two thirds of the time."""


def reduce_giant(image: pyvips.Image, decode: DecodePlan, width: int, height: int) -> pyvips.Image | None:
    """Return the image in ``width`` × ``height`` pixels, upright, in its own colours; ``None`` if this module
    cannot do it faster.

    The size is the one that a viewer sees, and not larger than the image. Raises ``pyvips.Error`` and
    ``CorruptImage``.
    """
    info = decode.header.info
    if (
        decode.header.region is not None
        or info.format != TIFF.name
        or decode.upload.memory is not None
        or image is not decode.header.image
    ):
        return None
    # ``thumbnail`` does not decode the largest level of a pyramid.
    if info.pages > 1 or decode.page or image.get_typeof("n-subifds") or not is_simple(image):
        return None
    width, height = info.swap_if_rotated(width, height)
    rows = _rows(image, decode)
    if rows is None:
        reduced = None if decode.header.decoder is not Decoder.LIBVIPS else _in_columns(decode, width, height)
    else:
        if decode.threads > 1 and not _AVERAGES_OVERLAP[0] <= info.height / height < _AVERAGES_OVERLAP[1]:
            # Set by the loader: it would make the threads wait for each other to read in order.
            rows.remove("vips-sequential")
        reduced = reduce_to(rows, width, height)
    return None if reduced is None else rotate_upright(reduced, decode.header)


def _rows(image: pyvips.Image, decode: DecodePlan) -> pyvips.Image | None:
    """Return the whole image, read from the mapped file while it is computed."""
    width, height, bands, _, interpretation = shape(image)
    start = rows_start(decode.upload, bands)
    if start is None:
        return None
    stride = width * bands
    rows = RowLayout(offset=start, stride=stride, used=stride, height=height, pixel=bands)
    whole = read_rows(decode.upload.view(), rows, "tiff", tolerant=False)
    return with_metadata(whole.copy(interpretation=interpretation), image)


def _in_columns(decode: DecodePlan, width: int, height: int) -> pyvips.Image | None:
    """Return the reduced image in memory, computed by the plan's threads."""
    block = block_of(decode.upload, 0)
    if block is None or not block.is_tile or width * height > _MAX_PIXELS:
        return None
    count = min(decode.threads, width, decode.header.info.width // (_MIN_TILES * max(1, block.width)))
    if count <= 1:
        return None
    view = decode.upload.view()
    columns = []
    for number in range(count):
        left, right = width * number // count, width * (number + 1) // count
        source = pyvips.Source.new_from_memory(view)
        whole = reduce_to(_open(source, decode), width, height)
        columns.append(whole.crop(left, 0, right - left, height))
        if decode.watch is not None:
            stop_while_computing(columns[-1], decode.watch)
    # One pipeline per thread of the executor, with a single thread each.
    with use_threads(1), ThreadPoolExecutor(count) as executor:
        computing = [executor.submit(column.copy_memory) for column in columns]
        done, others = wait(computing, return_when=FIRST_EXCEPTION)
        if others:
            for column in columns:
                column.set_kill(True)
    for column in done:
        column.result()  # raises the first error, before those of the columns that were stopped for it
    if decode.header.fail_on != "none" and logged_error():
        # libvips goes on after a damaged tile. Report it now, because joining clears the error.
        raise pyvips.Error("a tile cannot be decoded")
    return reduce(lambda left, right: left.join(right, "horizontal"), [one.result() for one in computing])


def _open(source: pyvips.Source, decode: DecodePlan) -> pyvips.Image:
    # Sequential access would decode whole rows of tiles for each column.
    return pyvips.Operation.call("tiffload_source", source, access="random", fail_on=decode.header.fail_on)
