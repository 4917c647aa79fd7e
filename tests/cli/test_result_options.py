"""The options of each result, from the words of a command line."""

import pytest

from vipsrv.cli.result_options import (
    FORMAT_OF_ENDING,
    Size,
    outputs_for,
    parse_bytes,
    parse_sizes,
    version_1_size,
)
from vipsrv.options import Fit, Format, Keep, ResizeOptions


@pytest.mark.parametrize(
    ("size", "sizes", "fit", "expected"),
    [
        ((None, None), [], None, [(800, 600, Fit.FILL)]),
        ((None, None), [], Fit.COVER, [(800, 600, Fit.COVER)]),
        ((80, 60), [], None, [(80, 60, Fit.FILL)]),
        ((80, None), [], None, [(80, None, Fit.INSIDE)]),
        ((None, 60), [], Fit.OUTSIDE, [(None, 60, Fit.OUTSIDE)]),
        (
            (None, None),
            [(320, None), (None, 480), (80, 60)],
            None,
            [(320, None, Fit.INSIDE), (None, 480, Fit.INSIDE), (80, 60, Fit.FILL)],
        ),
        ((None, None), [(320, None), (80, 60)], Fit.COVER, [(320, None, Fit.COVER), (80, 60, Fit.COVER)]),
    ],
)
def test_sizes_and_fit(
    size: Size, sizes: list[Size], fit: Fit | None, expected: list[tuple[int | None, int | None, Fit]]
) -> None:
    outputs = outputs_for(size, sizes, fit=fit, format=Format.PNG)
    assert list(outputs) == [
        ResizeOptions(width=width, height=height, fit=fit, format=Format.PNG)
        for width, height, fit in expected
    ]


@pytest.mark.parametrize("size", [(80, None), (None, 60), (80, 60)])
def test_a_size_beside_a_list_of_sizes(size: Size) -> None:
    with pytest.raises(ValueError, match="--output-sizes replaces --width and --height"):
        outputs_for(size, [(8, 6)], fit=None)


def test_fill_needs_both_sides() -> None:
    with pytest.raises(ValueError, match="height: is missing; the fit 'fill' needs both"):
        outputs_for((80, None), [], fit=Fit.FILL)


def test_a_list_of_sizes() -> None:
    assert parse_sizes("320x,x480, 800X600") == [(320, None), (None, 480), (800, 600)]


@pytest.mark.parametrize(
    "text",
    ["", "320", "x", "320x,", ",320x", "320x240x3", "-1x2", "1.5x2", "axb", "8 x6", "٣x٤", "9" * 5000 + "x"],
)
def test_an_invalid_list_of_sizes(text: str) -> None:
    with pytest.raises(ValueError, match=r"^--output-sizes: .* is not a size; write 800x600, 320x or x480"):
        parse_sizes(text)


def test_a_size_twice() -> None:
    with pytest.raises(ValueError, match="--output-sizes: 320x is given twice"):
        parse_sizes("320x,8x6,320x")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("100000", 100_000),
        ("100KB", 100_000),
        ("100k", 100_000),
        ("100 kb", 100_000),
        ("100KiB", 102_400),
        ("1.5MiB", 1_572_864),
        ("0.1MB", 100_000),
        ("2g", 2_000_000_000),
        ("1Gi", 2**30),
        ("7b", 7),
    ],
)
def test_bytes(text: str, size: int) -> None:
    assert parse_bytes("--max-bytes", text) == size


@pytest.mark.parametrize("text", ["", "KB", "-1", "1e3", "1TB", "1.KB", "1,5MB", "nan", "9" * 5000])
def test_an_invalid_number_of_bytes(text: str) -> None:
    with pytest.raises(ValueError, match=r"^--max-bytes: .* is not a size; write a number of bytes, 100KB"):
        parse_bytes("--max-bytes", text)


def test_every_format_that_is_written_has_an_ending() -> None:
    assert {*FORMAT_OF_ENDING.values(), Format.AUTO} == set(Format)


def test_version_1_has_a_size_alone() -> None:
    assert version_1_size([ResizeOptions(width=8, height=6)], None) == (8, 6)


@pytest.mark.parametrize(
    ("outputs", "deadline_ms", "said"),
    [
        (
            [ResizeOptions(width=8, height=6)] * 2,
            None,
            "--output-sizes: version 1 of the protocol returns one",
        ),
        ([ResizeOptions(width=8, fit=Fit.INSIDE)], None, "needs both --width and --height"),
        ([ResizeOptions(width=8, height=6, format=Format.PNG)], None, "--format: version 1 of the protocol"),
        (
            [ResizeOptions(width=8, height=6, max_bytes=9, keep=Keep.ALL)],
            5,
            "--deadline, --keep, --max-bytes: ",
        ),
    ],
)
def test_version_1_refuses_other_options(
    outputs: list[ResizeOptions], deadline_ms: int | None, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        version_1_size(outputs, deadline_ms)
