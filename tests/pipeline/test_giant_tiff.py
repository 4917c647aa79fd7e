"""The fast ways for large TIFFs give the pixels of ``thumbnail``, and are used only for suitable files."""

import io
import itertools
from pathlib import Path
from typing import Any

import pytest
import pyvips
from PIL import Image, ImageChops, ImageCms

from tests.support.image_comparison import open_exact
from tests.support.images import _placed, _rgb_fields, damaged, encode, photo, swapped_profile, truncated
from vipsrv import pipeline
from vipsrv.errors import Cancelled, CorruptImage, RequestError
from vipsrv.options import Format, Keep, ResizeOptions
from vipsrv.pipeline.cost import predict
from vipsrv.pipeline.formats.tiff import layout
from vipsrv.pipeline.probe import read_header
from vipsrv.pipeline.steps.fast_resize import reduce_to
from vipsrv.pipeline.vips.threads import use_threads
from vipsrv.worker_config import WorkerConfig

LIMITS = WorkerConfig(max_pixels=100_000_000, max_output_pixels=50_000_000, quality=90)
WIDTH, HEIGHT = 1001, 603


def scene(mode: str = "RGB") -> Image.Image:
    return photo().resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).convert(mode)


def strips(mode: str = "RGB", **options: Any) -> bytes:
    return encode(scene(mode), "TIFF", **options)


def tiles(**options: Any) -> bytes:
    image = pyvips.Image.new_from_memory(scene().tobytes(), WIDTH, HEIGHT, 3, "uchar")
    data = image.copy(interpretation="srgb").tiffsave_buffer(
        tile=True, tile_width=32, tile_height=32, **{"compression": "deflate", **options}
    )
    return bytes(data)


def run(path: Path, options: ResizeOptions, **settings: Any) -> bytes:
    """The result for an upload in a file."""
    with path.open("rb") as file:
        upload = pipeline.Upload.from_descriptor(file.fileno(), path.stat().st_size)
        result = pipeline.resize(upload, (options,), config=LIMITS, **settings)
    return result.outputs[0].data


def in_memory(image: bytes, options: ResizeOptions) -> bytes:
    """The same result by ``thumbnail``, which an upload in memory goes through."""
    upload = pipeline.Upload.from_memory(image)
    return pipeline.resize(upload, (options,), config=LIMITS).outputs[0].data


def difference(one: bytes, other: bytes) -> int:
    """The largest difference between two samples."""
    first, second = open_exact(one), open_exact(other)
    assert first.size == second.size
    extrema: Any = ImageChops.difference(first.convert("RGB"), second.convert("RGB")).getextrema()
    return max(int(high) for _, high in extrema)


def rows_start(encoded: bytes) -> int | None:
    upload = pipeline.Upload.from_memory(encoded)
    return layout.rows_start(upload, read_header(upload).image.bands)


def options(width: int = 97, height: int = 61, **others: Any) -> ResizeOptions:
    return ResizeOptions(width=width, height=height, format=Format.PNG, **others)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(97, 61), (800, 600), (1001, 100), (50, 603), (1200, 700)])
def test_uncompressed_strips_give_the_same_as_thumbnail(
    tmp_path: Path, mode: str, size: tuple[int, int]
) -> None:
    image = strips(mode)
    assert rows_start(image) is not None
    (tmp_path / "image").write_bytes(image)
    assert difference(run(tmp_path / "image", options(*size)), in_memory(image, options(*size))) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("make", [strips, None])
def test_strips_and_tiles_are_rotated(tmp_path: Path, make: Any, orientation: int) -> None:
    if make is None:
        image = pyvips.Image.new_from_buffer(tiles(), "").copy()
        image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
        encoded = bytes(image.tiffsave_buffer(tile=True, tile_width=32, tile_height=32, compression="lzw"))
    else:
        encoded = make(tiffinfo={274: orientation})
    (tmp_path / "encoded").write_bytes(encoded)
    result = run(tmp_path / "encoded", options(), threads=2)
    assert difference(result, in_memory(encoded, options())) <= 1


@pytest.mark.parametrize("keep", [Keep.NONE, Keep.ICC])
def test_a_profile_in_strips_is_applied(tmp_path: Path, keep: Keep) -> None:
    image = strips(icc_profile=swapped_profile())
    assert rows_start(image) is not None
    (tmp_path / "image").write_bytes(image)
    result = run(tmp_path / "image", options(keep=keep))
    assert difference(result, in_memory(image, options(keep=keep))) <= 1
    assert ("icc_profile" in open_exact(result).info) == (keep is Keep.ICC)
    if keep is Keep.ICC:
        ImageCms.ImageCmsProfile(io.BytesIO(open_exact(result).info["icc_profile"]))


def test_rows_that_are_not_the_pixels_are_left_to_libvips() -> None:
    image = pyvips.Image.new_from_buffer(strips(), "")
    assert rows_start(bytes(image.tiffsave_buffer(bigtiff=True))) is not None
    others = [
        strips(compression="tiff_lzw"),
        bytes(image.tiffsave_buffer(tile=True)),
        strips("1"),
        strips("P"),
        strips("RGBA"),
        strips("I;16"),
        strips("CMYK"),
        bytes(image.colourspace("b-w").tiffsave_buffer(miniswhite=True)),
        truncated(strips(), 0.9),
        b"II*\0\x08\0\0\0",
    ]
    for other in others[:-2]:
        assert rows_start(other) is None
    for other in others[-2:]:
        assert layout.rows_start(pipeline.Upload.from_memory(other), 3) is None


@pytest.mark.parametrize("count", [4, 1])
def test_strips_with_gaps_are_left_to_libvips(count: int) -> None:
    rows = -(-HEIGHT // count)
    sizes = [WIDTH * 3 * min(rows, HEIGHT - row) for row in range(0, HEIGHT, rows)]
    head = tiff_of_strips(sizes, rows)
    start = layout.rows_start(pipeline.Upload.from_memory(head + bytes(sum(sizes))), 3)
    assert start == len(head)
    for change in ([*sizes[:-1], sizes[-1] - 1], [*sizes[:-1], sizes[-1] + 1], [*sizes, 1], [*sizes[:-1], 0]):
        image = tiff_of_strips(change, rows) + bytes(sum(sizes))
        assert layout.rows_start(pipeline.Upload.from_memory(image), 3) is None
    shorter = head + bytes(sum(sizes) - 1)
    assert layout.rows_start(pipeline.Upload.from_memory(shorter), 3) is None


def test_rows_of_fewer_bits_are_left_to_libvips() -> None:
    """One strip with a byte per pixel, as the fast way expects it, but a pixel has only one bit."""
    fields = [field for field in _rgb_fields(64, 64, 1) if field[0] not in (258, 262, 277)]
    fields += [(262, 3, [1]), (277, 3, [1]), (278, 4, [64])]
    for bits, start in ((8, True), (1, False), (4, False)):
        head = _placed([*fields, (258, 3, [bits])], 273, [64 * 64])
        image = pipeline.Upload.from_memory(head + bytes(64 * 64))
        assert (layout.rows_start(image, 1) is not None) is start


def tiff_of_strips(sizes: list[int], rows: int) -> bytes:
    """The head of an uncompressed RGB TIFF; its strips follow one after another."""
    return _placed([*_rgb_fields(WIDTH, HEIGHT, 1), (278, 4, [rows])], 273, sizes)


@pytest.mark.parametrize("threads", [2, 3, 5, 64])
@pytest.mark.parametrize("size", [(97, 61), (700, 3), (3, 500), (1001, 603), (1100, 80)])
def test_columns_give_the_same_as_thumbnail(tmp_path: Path, threads: int, size: tuple[int, int]) -> None:
    image = tiles()
    (tmp_path / "image").write_bytes(image)
    result = run(tmp_path / "image", options(*size), threads=threads)
    assert difference(result, in_memory(image, options(*size))) <= 1


def test_columns_of_signed_bytes_give_the_same_as_one_thread(tmp_path: Path) -> None:
    image = pyvips.Image.new_from_memory(scene().tobytes(), WIDTH, HEIGHT, 3, "char")
    image = image.copy(interpretation="srgb")
    (tmp_path / "encoded").write_bytes(
        image.tiffsave_buffer(tile=True, tile_width=32, tile_height=32, compression="deflate")
    )
    alone, together = (run(tmp_path / "encoded", options(), threads=threads) for threads in (1, 3))
    assert difference(alone, together) == 0


def test_a_damaged_tile_in_a_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(damaged(tiles()))
    with pytest.raises(CorruptImage):
        run(tmp_path / "image", options(), threads=3)


@pytest.mark.parametrize("make", [strips, tiles])
def test_columns_stop_when_asked(tmp_path: Path, make: Any) -> None:
    asked = itertools.count()

    def watch() -> RequestError | None:
        return Cancelled("enough") if next(asked) > 0 else None

    big = pyvips.Image.new_from_buffer(make(), "").replicate(3, 3)
    saved = {"tile": True, "tile_width": 32, "tile_height": 32} if make is tiles else {}
    (tmp_path / "image").write_bytes(big.tiffsave_buffer(compression="deflate" if saved else "none", **saved))
    with pytest.raises(Cancelled):
        run(tmp_path / "image", options(1500, 900), threads=2, watch=watch)
    assert next(asked) > 1


def test_each_job_has_its_own_number_of_threads(tmp_path: Path) -> None:
    seen = []

    def watch() -> None:
        seen.append(pyvips.concurrency_get())

    big = pyvips.Image.new_from_buffer(strips(), "").replicate(3, 3)
    (tmp_path / "image").write_bytes(big.tiffsave_buffer())
    before = pyvips.concurrency_get()
    run(tmp_path / "image", options(300, 300), threads=3, watch=watch)
    assert set(seen) == {3}
    assert pyvips.concurrency_get() == before


@pytest.mark.parametrize(
    ("threads", "height", "access"),
    [
        (1, 61, "in order"),
        (2, HEIGHT // 20, "in any order"),
        (2, HEIGHT // 8, "in order"),
        (2, 300, "in any order"),
    ],
)
def test_rows_are_read_in_order_only_if_averages_overlap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, height: int, access: str
) -> None:
    seen = []

    def noted(image: pyvips.Image, width: int, height: int) -> pyvips.Image:
        seen.append("in order" if image.get_typeof("vips-sequential") else "in any order")
        return reduce_to(image, width, height)

    monkeypatch.setattr("vipsrv.pipeline.steps.giant_tiff.reduce_to", noted)
    (tmp_path / "encoded").write_bytes(strips())
    run(tmp_path / "encoded", options(height=height), threads=threads)
    assert seen == [access]


def test_the_number_of_threads_is_restored_after_an_error() -> None:
    before = pyvips.concurrency_get()
    with pytest.raises(CorruptImage), use_threads(before + 1):
        raise CorruptImage("a word")
    assert pyvips.concurrency_get() == before


def test_a_job_has_no_more_threads_than_its_memory_allows(tmp_path: Path) -> None:
    seen = []

    def watch() -> None:
        seen.append(pyvips.concurrency_get())

    big = pyvips.Image.new_from_buffer(strips(), "").replicate(3, 3)
    (tmp_path / "image").write_bytes(big.tiffsave_buffer())
    with (tmp_path / "image").open("rb") as file:
        upload = pipeline.Upload.from_descriptor(file.fileno(), (tmp_path / "image").stat().st_size)
        needed = predict(upload, read_header(upload), (options(300, 300),)).memory
        limits = WorkerConfig(max_pixels=10**8, max_output_pixels=10**8, job_memory=needed * 5 // 2)
        pipeline.resize(upload, (options(300, 300),), config=limits, threads=8, watch=watch)
    assert set(seen) == {2}
