"""A result that is not what was asked for is found, with the reason."""

import io
from typing import Any

import pytest

from bench.baselines.result_check import checker
from tests.support.images import photo

ASKED: dict[str, Any] = {"format": "jpeg", "width": 60, "height": 40, "quality": 85}


def saved(form: str = "JPEG", size: tuple[int, int] = (60, 40), **options: Any) -> bytes:
    data = io.BytesIO()
    photo(*size).save(data, form, **({"quality": 85} | options))
    return data.getvalue()


def problem(result: bytes, **asked: Any) -> str | None:
    return checker(**(ASKED | asked))(result)


def test_a_result_as_it_was_asked_for_has_no_problem() -> None:
    assert problem(saved()) is None
    assert problem(saved("WEBP"), format="webp") is None


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (saved(size=(61, 40)), "the size is 61 × 40, not 60 × 40"),
        (saved(subsampling=0), "the subsampling is 4:4:4, not 4:2:0"),
        (saved(quality=80), "the quality is 80, not 85"),
        (saved("PNG"), "this is no JPEG, but a JPEG was asked for"),
        (saved()[:-2], "the JPEG has no end"),
        (b"", "this is no JPEG, but a JPEG was asked for"),
    ],
)
def test_a_wrong_jpeg_is_told(result: bytes, told: str) -> None:
    assert problem(result) == told


def test_all_that_is_wrong_with_a_jpeg_is_told() -> None:
    told = problem(saved(size=(61, 40), quality=80))
    assert told == "the size is 61 × 40, not 60 × 40; the quality is 80, not 85"


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (saved("WEBP", (61, 40)), "WEBP of 61 × 40, not WEBP of 60 × 40"),
        (saved("JPEG"), "JPEG of 60 × 40, not WEBP of 60 × 40"),
        (b"no", "this is no image, but webp was asked for"),
    ],
)
def test_a_wrong_webp_is_told(result: bytes, told: str) -> None:
    assert problem(result, format="webp") == told
