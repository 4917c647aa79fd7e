"""The predicted cost of jobs, and what is refused for it. bench.cost compares predictions with reality."""

import contextlib
import dataclasses
import importlib
import os
import struct
import weakref
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.pipeline.run import sample
from tests.support.bitmaps import icon
from tests.support.bombs import BOMBS, avif_grid, gif_frames, jpeg_scans, png, png_chunk, text_png
from tests.support.images import (
    HEIGHT,
    WIDTH,
    animated,
    encode,
    interlaced_png,
    jpeg,
    oriented_jpeg,
    tiled_tiff,
)
from vipsrv import pipeline
from vipsrv.errors import CorruptImage, TooLarge
from vipsrv.options import Fit, Format, Position, ResizeOptions
from vipsrv.pipeline import Upload, turbo
from vipsrv.pipeline.cost import (
    LIGHT,
    LIGHT_SECONDS,
    Cost,
    NeedsHeavyLane,
    admit_trim,
    max_encodes,
    predict,
    predict_all,
)
from vipsrv.pipeline.formats import heif, webp
from vipsrv.pipeline.formats.heif.items import CodedPixels, coded_pixels
from vipsrv.pipeline.formats.jpeg.segments import Scans, coefficient_bytes, count_scans
from vipsrv.pipeline.formats.tiff.directory import metadata_sizes
from vipsrv.pipeline.formats.tiff.layout import block_of
from vipsrv.pipeline.header import ImageHeader
from vipsrv.pipeline.plan import DecodePlan
from vipsrv.pipeline.probe import open_page, read_header
from vipsrv.worker_config import WorkerConfig

LIMITS = WorkerConfig(max_pixels=10**10, max_output_pixels=10**9)
SMALL = ResizeOptions(width=80, height=60)


def cost(image: bytes, *outputs: ResizeOptions) -> Cost:
    upload = pipeline.Upload.from_memory(image)
    return predict(upload, read_header(upload), outputs or (SMALL,))


def resize(image: bytes, *, seconds: float | None = None, heavy_ok: bool = True, **limits: Any) -> object:
    return pipeline.resize(
        pipeline.Upload.from_memory(image),
        (SMALL,),
        config=dataclasses.replace(LIMITS, **limits),
        seconds=seconds,
        heavy_ok=heavy_ok,
    )


def grown(make: Callable[[int, int], bytes], output: ResizeOptions = SMALL) -> float:
    """Additional bytes of memory per additional pixel, between an image and one of a quarter of its pixels,
    without the copy of the file.
    """
    large, small = make(1200, 1200), make(600, 600)
    more = cost(large, output).memory - len(large) - cost(small, output).memory + len(small)
    return more / (1200 * 1200 - 600 * 600)


def streamed(bands: int) -> float:
    """The part of ``grown`` that streamed rows take: 2,000 of 1,200 pixels minus 1,400 of 600."""
    return bands * (2000 * 1200 - 1400 * 600) / (1200 * 1200 - 600 * 600)


def flat(mode: str, kind: str, **options: object) -> Callable[[int, int], bytes]:
    return lambda width, height: encode(Image.new(mode, (width, height)), kind, **options)


@pytest.mark.parametrize(
    ("make", "least", "most"),
    [
        (flat("RGB", "JPEG", progressive=True, subsampling="4:2:0"), 3, 4),
        (flat("RGB", "JPEG", progressive=True, subsampling="4:4:4"), 6, 7),
        (flat("L", "JPEG", progressive=True), 2, 3),
        (flat("RGB", "JPEG"), 0, 1),
        (flat("RGB", "PNG"), 0, streamed(3) + 0.5),
        (interlaced_png, 3, 3 + streamed(3) + 0.5),
        (flat("P", "GIF"), 4, 4 + streamed(3) + 0.5),
        (flat("RGB", "WEBP"), 0, 0.5),
        (flat("RGB", "WEBP", lossless=True), 4, 5),
        (flat("RGB", "AVIF", speed=10), 15, 21 + streamed(3) + 0.5),
        (flat("RGB", "TIFF"), 0, streamed(3) + 0.5),
        (lambda width, height: tiled_tiff(width, height, tile=1200), 0, 2 * 3 * 2 + streamed(3) + 0.5),
    ],
)
def test_memory_grows_with_what_the_format_holds(
    make: Callable[[int, int], bytes], least: float, most: float
) -> None:
    assert least <= grown(make) <= most


def test_coefficients_are_counted_in_whole_units() -> None:
    # 17 x 9 pixels of 4:2:0 are 2 x 1 units of 16 x 16 pixels, 6 blocks of 128 bytes each.
    image = encode(Image.new("RGB", (17, 9)), "JPEG", progressive=True, subsampling="4:2:0")
    assert coefficient_bytes(pipeline.Upload.from_memory(image)) == 2 * 6 * 128
    assert coefficient_bytes(pipeline.Upload.from_memory(image[:40])) == 0


def coded(image: bytes, shown: int = 1) -> CodedPixels:
    return coded_pixels(pipeline.Upload.from_memory(image), shown)


def test_the_pixels_of_an_avif_are_those_of_its_parts() -> None:
    whole = WIDTH * HEIGHT
    assert coded(sample("avif")) == CodedPixels(total=whole, largest=whole)
    assert coded(sample("avif-alpha")) == CodedPixels(total=2 * whole, largest=whole)
    for more in ({}, {"shown": (100, 70)}, {"aperture": (100, 70)}):
        grid = avif_grid(3, 4, 64, **more)
        assert coded(grid) == CodedPixels(total=3 * 4 * 64 * 64, largest=64 * 64)
        seen = read_header(pipeline.Upload.from_memory(grid)).info
        assert (seen.width, seen.height) == (next(iter(more.values())) if more else (4 * 64, 3 * 64))


def test_box_sizes_of_an_avif_in_all_forms() -> None:
    grid = avif_grid(3, 4, 64)
    at = grid.index(b"meta") - 4
    size = int.from_bytes(grid[at : at + 4])
    wide = grid[:at] + b"\0\0\0\1meta" + struct.pack(">Q", size + 8) + grid[at + 8 :]
    to_the_end = grid[:at] + bytes(4) + grid[at + 4 : at + size]
    assert coded(wide) == coded(to_the_end) == coded(grid)
    # An image without parts uses the short form.
    assert coded(grid[:at] + struct.pack(">I4s", 12, b"mini") + bytes(4), shown=99) == CodedPixels(99, 99)


def test_an_avif_without_sizes_of_its_parts_is_refused() -> None:
    grid = avif_grid(3, 4, 64)
    at = grid.index(b"meta") - 4
    broken = [
        grid[:at],
        grid[: at + 40],
        grid.replace(b"pitm", b"none"),
        grid.replace(b"ispe", b"none"),
        # A box of length 0, and one whose head is truncated.
        grid.replace(grid[at : at + 4], b"\0\0\0\2", 1),
        grid[:at] + b"\0\0",
        # A part of itself.
        grid.replace(b"dimg" + struct.pack(">HHH", 1, 12, 2), b"dimg" + struct.pack(">HHH", 1, 12, 1)),
    ]
    for image in broken:
        assert image != grid
        with pytest.raises(CorruptImage):
            coded(image)


def test_a_part_of_an_avif_that_is_larger_than_what_is_shown_is_counted() -> None:
    corner = cost(avif_grid(1, 1, 1024, shown=(64, 64)))
    assert corner.memory > 15 * 1024 * 1024
    assert cost(avif_grid(4, 4, 256, shown=(64, 64))).seconds == pytest.approx(corner.seconds, rel=0.01)
    # Parts are decoded one after another.
    assert cost(avif_grid(4, 4, 256)).memory < 0.8 * cost(avif_grid(1, 1, 1024)).memory


@pytest.mark.parametrize("kind", [Fit.FILL, Fit.COVER, Fit.INSIDE])
def test_a_result_that_is_not_enlarged_costs_no_more_than_the_image(kind: Fit) -> None:
    asked = ResizeOptions(width=20_000, height=20_000, fit=kind, enlarge=False)
    assert cost(jpeg(64, 48), asked) == cost(jpeg(64, 48), ResizeOptions(width=64, height=48))


def test_the_scans_of_a_jpeg_are_counted() -> None:
    def counted(image: bytes, most: int = 99) -> int:
        allowed = Scans(count=most, segments=1 << 20)
        return count_scans(pipeline.Upload.from_memory(image), allowed).count

    many = jpeg_scans(30, side=64)
    assert counted(many) == 30
    assert counted(many, 7) == 8
    # What looks like a scan within metadata or after the end does not count.
    comment = b"\xff\xfe\x00\xca" + b"\xff\xda" * 100
    assert counted(many[:2] + comment + many[2:] + b"\xff\xda" * 100) == 30
    resize(many)


def test_blocks_of_a_tiff() -> None:
    tiled = pipeline.Upload.from_memory(tiled_tiff(300, 200, tile=64))
    strips = pipeline.Upload.from_memory(encode(Image.new("L", (300, 200)), "TIFF", compression="tiff_lzw"))
    block, strip = block_of(tiled, 0), block_of(strips, 0)
    assert block is not None
    assert strip is not None
    assert (block.width, block.height, block.is_tile, block.compression) == (64, 64, True, 1)
    assert (strip.width, strip.is_tile, strip.compression, strip.planar) == (300, False, 5, False)
    assert block_of(tiled, 1) is None


def test_a_tiff_with_a_circle_of_directories_ends() -> None:
    data = bytearray(encode(Image.new("L", (8, 8)), "TIFF"))
    start = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, start)[0]
    struct.pack_into("<I", data, start + 2 + 12 * count, start)
    assert len(list(metadata_sizes(pipeline.Upload.from_memory(bytes(data))))) == 1


def test_a_lossless_webp_is_recognised() -> None:
    assert webp.is_lossless(pipeline.Upload.from_memory(sample("webp-lossless")))
    assert not webp.is_lossless(pipeline.Upload.from_memory(sample("webp-alpha")))


@pytest.mark.parametrize("count", [1, 40, 1000])
def test_a_lossless_webp_is_recognised_after_other_chunks(count: int) -> None:
    image = encode(Image.new("RGB", (600, 600)), "WEBP", lossless=True)
    size = (599).to_bytes(3, "little")
    chunks = b"VP8X" + struct.pack("<I", 10) + bytes(4) + size + size + (b"junk" + bytes(4)) * count
    chunks = b"WEBP" + chunks + image[12:]
    hidden = b"RIFF" + struct.pack("<I", len(chunks)) + chunks
    resize(hidden)
    assert cost(hidden).memory - len(hidden) == cost(image).memory - len(image)


def in_icon(image: bytes) -> bytes:
    return icon([(256, 256, 32, image)])


@pytest.mark.parametrize(
    "make",
    [
        interlaced_png,
        flat("RGB", "PNG"),
        flat("P", "PNG"),
        lambda width, height: png(width, height, bits=16, interlaced=True),
    ],
)
def test_a_png_in_an_icon_costs_the_same_as_alone(make: Callable[[int, int], bytes]) -> None:
    alone = make(600, 400)
    there = in_icon(alone)
    seen, wanted = cost(there), cost(alone)
    # The icon is copied once more.
    assert seen.memory - len(there) - len(alone) == wanted.memory - len(alone)
    assert seen.seconds == wanted.seconds


def test_a_png_in_an_icon_has_the_same_limits_as_alone() -> None:
    with pytest.raises(TooLarge, match="metadata in this png's header"):
        resize(in_icon(text_png()))
    with pytest.raises(TooLarge, match="max-expansion"):
        resize(in_icon(png(28_000, 28_000, bits=8)))
    resize(in_icon(text_png(2, 3_000_000)))


def test_the_cost_of_a_file_is_that_of_memory(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(sample("tiff-tiled"))
    with path.open("rb") as file:
        upload = pipeline.Upload.from_descriptor(file.fileno(), path.stat().st_size)
        of_file = predict(upload, read_header(upload), (SMALL,))
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) >= 0
    # pyvips copies what is in memory.
    assert cost(sample("tiff-tiled")).memory - of_file.memory == len(sample("tiff-tiled"))


def test_the_cost_of_results_includes_their_encoder() -> None:
    image = jpeg(64, 48)

    def memory(**options: object) -> int:
        return cost(image, ResizeOptions(width=2000, height=2000, **options)).memory  # type: ignore[arg-type]

    plain = memory()
    assert memory(format=Format.AVIF) - plain > 20 * 4_000_000
    assert memory(format=Format.WEBP, lossless=True) > memory(format=Format.WEBP) > plain
    assert memory(max_bytes=1000) - plain == 3 * 4_000_000
    assert memory(fit=Fit.COVER, position=Position.ENTROPY) > memory(fit=Fit.COVER)
    assert cost(image, *[ResizeOptions(width=2000, height=2000)] * 3).memory - plain > 3 * 3 * 4_000_000


def test_a_rotated_image_is_held_in_memory() -> None:
    large = ResizeOptions(width=2000, height=1000)
    turned, upright = cost(oriented_jpeg(6, 1000, 500), large), cost(oriented_jpeg(1, 1000, 500), large)
    assert turned.memory - upright.memory > 2 * 2_000_000


@pytest.mark.skipif(not turbo.AVAILABLE, reason="simplejpeg or cykooz-resizer is not installed")
@pytest.mark.parametrize(
    ("size", "measured"),
    [((199, 19_900), 62_400_000), ((150, 15_000), 52_700_000)],  # a worker's peak, without its idle memory
)
def test_a_jpeg_that_is_hardly_reduced_is_held_several_times(size: tuple[int, int], measured: int) -> None:
    upload = Upload.from_memory(encode(Image.new("RGB", (200, 20_000)), "JPEG"))
    options = ResizeOptions(width=size[0], height=size[1])
    assert predict(upload, read_header(upload), [options]).memory > measured


def test_a_heavy_job_is_given_back_before_it_is_decoded() -> None:
    # The pixels are missing, so decoding would fail.
    image = png(9_000, 9_000, interlaced=True)[:40_000]
    with pytest.raises(NeedsHeavyLane) as needed:
        resize(image, heavy_ok=False, max_expansion=10**6)
    assert needed.value.memory == cost(image).memory > LIGHT
    resize(jpeg(64, 48), heavy_ok=False)


SMALL_THEN_LARGE = [
    ResizeOptions(width=300, height=300, format=Format.WEBP, lossless=True),
    ResizeOptions(width=1400, height=1400, page=1, format=Format.WEBP, lossless=True),
    ResizeOptions(width=40, height=30, page=2),
]


@cache
def three_frames() -> bytes:
    """An animation of three frames."""
    return animated("GIF")


def resize_pages(outputs: Sequence[ResizeOptions], *, heavy_ok: bool = True) -> pipeline.Result:
    """The outputs of an animation of three frames."""
    upload = pipeline.Upload.from_memory(three_frames())
    return pipeline.resize(upload, outputs, config=LIMITS, heavy_ok=heavy_ok)


def test_the_costs_of_pages_add_up() -> None:
    asked = set()
    for outputs in (SMALL_THEN_LARGE, SMALL_THEN_LARGE[::-1]):
        with pytest.raises(NeedsHeavyLane) as needed:
            resize_pages(outputs, heavy_ok=False)
        asked.add(needed.value.memory)
    alone = []
    for options in SMALL_THEN_LARGE:
        upload = pipeline.Upload.from_memory(three_frames())
        alone.append(predict(upload, open_page(upload, read_header(upload), options.page), [options]))
    # The most expensive page, while the results of the others wait.
    (memory,) = asked
    assert max(one.memory for one in alone) <= memory
    assert memory <= max(one.memory for one in alone) + sum(one.results for one in alone)
    upload = pipeline.Upload.from_memory(three_frames())
    header = read_header(upload)
    parts = [(open_page(upload, header, options.page), [options]) for options in SMALL_THEN_LARGE]
    assert predict_all(upload, parts).seconds == pytest.approx(sum(one.seconds for one in alone))
    resize_pages(SMALL_THEN_LARGE)


def test_a_page_that_is_done_frees_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("vipsrv.pipeline.resize")
    run = module.run_page
    before: list[weakref.ref[ImageHeader]] = []

    def run_page_checked(decode: DecodePlan, *others: Any) -> Any:
        assert [header() for header in before] == [None] * len(before)
        before.append(weakref.ref(decode.header))
        return run(decode, *others)

    monkeypatch.setattr(module, "run_page", run_page_checked)
    resize_pages([ResizeOptions(width=40, height=30, page=page) for page in range(3)])
    assert len(before) == 3


def test_a_job_above_job_memory_is_refused() -> None:
    image = sample("gif")
    needs = cost(image).memory
    resize(image, job_memory=needs)
    with pytest.raises(TooLarge) as refused:
        resize(image, job_memory=needs - 1)
    assert refused.value.message == (
        f"the job would take {needs} bytes of memory; job-memory allows {needs - 1}"
    )


def test_a_job_that_cannot_meet_its_deadline_is_refused() -> None:
    image = png(60_000, 60_000, bits=1)
    with pytest.raises(TooLarge, match=r"^the job would take at least 1\.8\d s of computing; its deadline"):
        resize(image, seconds=1.5, max_expansion=10**6)
    # A small image is tried: the rest of a deadline is not a property of the image.
    resize(jpeg(64, 48), seconds=0.000001)


@pytest.mark.parametrize("head", [b"P2 4 4 255\n", encode(Image.new("P", (4, 4)), "BMP")[:30] + b"\1"])
def test_long_texts_and_runs_make_a_job_heavy(head: bytes) -> None:
    image = head + bytes(6_000_000)
    assert cost(image).at_worst > LIGHT_SECONDS > cost(image).seconds


def test_frames_before_a_page_make_a_job_heavy_but_not_hopeless() -> None:
    # Frames of one pixel each.
    upload = pipeline.Upload.from_memory(gif_frames(1000, 600, 600))
    last = ResizeOptions(width=80, height=60, page=999)

    def make(*, heavy_ok: bool) -> pipeline.Result:
        return pipeline.resize(upload, [last], config=LIMITS, seconds=1.1, heavy_ok=heavy_ok)

    with pytest.raises(NeedsHeavyLane):
        make(heavy_ok=False)
    assert make(heavy_ok=True).outputs[0].info.width == 80


def test_a_small_file_that_expands_too_much_is_refused() -> None:
    image = png(30_000, 30_000, bits=1)
    with pytest.raises(TooLarge, match=r"decodes to 112500000 bytes, \d+ times its size .* allows 250 times"):
        resize(image)
    # 100 MB are allowed at any expansion; pixels of 1 bit count as bits.
    small = png(28_000, 28_000, bits=1)
    assert cost(small).memory < 2 * LIGHT
    with pytest.raises(TooLarge, match="max-expansion"):
        resize(png(28_000, 28_000, bits=8))


def test_a_flat_image_that_takes_little_is_no_bomb() -> None:
    # A scan of 36 megapixels, a logo, and a photo of one colour.
    for image, kind, options in (
        (Image.new("RGB", (6000, 6000), (255, 255, 255)), "PNG", {"compress_level": 9}),
        (Image.new("RGB", (5790, 5790), (255, 255, 255)), "WEBP", {"lossless": True, "method": 0}),
        (Image.new("L", (11_000, 11_000), 200), "JPEG", {"optimize": True}),
    ):
        data = encode(image, kind, **options)
        assert len(data) * 250 < image.width * image.height * len(image.getbands())
        resize(data)


def test_a_flat_image_that_takes_long_is_refused() -> None:
    # 50 MB at one bit, but seven passes over all pixels.
    with pytest.raises(TooLarge, match="max-expansion"):
        resize(png(20_000, 20_000, bits=1, interlaced=True))


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_bombs_are_refused(name: str) -> None:
    with pytest.raises(TooLarge):
        resize(BOMBS[name](), job_memory=400 << 20)


@pytest.mark.parametrize("name", ["webp", "webp-lossless", "webp-animated"])
def test_what_follows_a_webp_is_not_counted(name: str) -> None:
    image = sample(name)
    padded = image + bytes(81_000)
    resize(padded)
    assert (
        pipeline.read_info(pipeline.Upload.from_memory(padded)).pages
        == read_header(pipeline.Upload.from_memory(image)).info.pages
    )
    assert cost(padded).memory - len(padded) == cost(image).memory - len(image)
    # Within the end that its header states, they count.
    size = struct.pack("<I", len(padded) - 8)
    with pytest.raises(TooLarge, match="pages or frames"):
        resize(padded[:4] + size + padded[8:])


def test_texts_and_frames_below_the_limits_pass() -> None:
    resize(text_png(2, 3_000_000))
    resize(gif_frames(10_000))
    xmp = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"<x/>" * 250_000)
    packed = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<x/>" * 250_000))
    resize(png(16, 16, before=xmp + packed))


def test_compressed_international_text_counts_with_its_inflated_size() -> None:
    packed = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0en\0x\0" + zlib.compress(bytes(20_000_000), 9))
    with pytest.raises(TooLarge, match="metadata in this png's header"):
        resize(png(16, 16, before=packed))


@pytest.mark.parametrize(("quality", "encodes"), [(None, 8), (100, 8), (85, 8), (64, 7), (2, 2), (1, 1)])
def test_every_encode_that_max_bytes_may_take_is_counted(quality: int | None, encodes: int) -> None:
    def asked(max_bytes: int | None) -> Cost:
        options = ResizeOptions(width=64, height=48, format=Format.AVIF, quality=quality, max_bytes=max_bytes)
        return cost(jpeg(64, 48), options)

    assert heif.AVIF.writer is not None
    once, search = asked(None), asked(1000)
    # One is the least: the first result may fit.
    assert search.seconds == once.seconds
    encode = heif.AVIF.writer.cost.seconds * 64 * 48 / 1e6
    assert search.at_worst - once.at_worst == pytest.approx((encodes - 1) * encode)


def test_the_search_of_max_bytes_encodes_no_more_often_than_predicted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = importlib.import_module("vipsrv.pipeline.steps.encode")
    write, calls = module._write, []

    def counting(*arguments: Any) -> Any:
        calls.append(arguments)
        return write(*arguments)

    monkeypatch.setattr(module, "_write", counting)
    most = 0
    for quality in (1, 2, 3, 64, 65, 85, 100):
        for max_bytes in (1, 400, 700, 1000, 2000):
            options = ResizeOptions(width=64, height=48, quality=quality, max_bytes=max_bytes)
            calls.clear()
            with contextlib.suppress(TooLarge):
                pipeline.resize(pipeline.Upload.from_memory(jpeg(64, 48)), (options,), config=LIMITS)
            assert 1 <= len(calls) <= max_encodes(options)
            most = max(most, len(calls))
    assert most == 8


def test_a_search_for_an_avif_is_heavy() -> None:
    options = ResizeOptions(width=1200, height=1150, format=Format.AVIF, effort=3)
    assert cost(jpeg(1200, 1150), options).at_worst < LIGHT_SECONDS
    with pytest.raises(NeedsHeavyLane) as needed:
        pipeline.resize(
            pipeline.Upload.from_memory(jpeg(1200, 1150)),
            (dataclasses.replace(options, max_bytes=120_000),),
            config=LIMITS,
            heavy_ok=False,
        )
    assert needed.value.seconds > 1


def test_the_passes_of_an_interlaced_png_cost_the_same_for_one_bit() -> None:
    bits, bytes_ = (png(2000, 2000, bits=bits, interlaced=True) for bits in (1, 8))
    assert cost(bits).seconds == cost(bytes_).seconds
    # Half of the 6.3 ns per pixel that 400 megapixels take.
    assert cost(bits).seconds == pytest.approx(4 * 0.0035, rel=0.1)
    rgb = cost(interlaced_png(600, 400)).seconds
    assert rgb == pytest.approx(0.24 * 3 * 0.0017, rel=0.1)


def test_the_decodes_of_all_trims_add_up() -> None:
    """Each view that is trimmed is decoded once more, before anything else is admitted."""
    upload = pipeline.Upload.from_memory(jpeg(1200, 1150))

    def admit(trims: int) -> None:
        admit_trim(upload, read_header(upload), 0, 0, trims, config=LIMITS, seconds=None, heavy_ok=False)

    admit(1)
    with pytest.raises(NeedsHeavyLane):
        admit(200)
