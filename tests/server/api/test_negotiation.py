"""What a client accepts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipsrv.options import Format
from vipsrv.server.api.negotiation import preferred_format, prefers_zip

ALL = ("jpeg", "png", "webp", "avif", "tiff", "gif", "jxl")
CHROMIUM = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", None),
        ("*/*", None),
        ("image/*", None),
        ("image/jpeg", None),
        (CHROMIUM, Format.AVIF),
        ("image/png,image/*;q=0.8,*/*;q=0.5", None),
        ("image/webp,*/*", Format.WEBP),
        ("image/webp,image/jxl,*/*", Format.JXL),
        ("image/webp,image/jxl,image/avif", Format.AVIF),
        ("IMAGE/WEBP", Format.WEBP),
        ("image/webp, image/avif;q=0.9", Format.WEBP),
        ("image/webp;q=0.5, image/avif;q=0.5", Format.AVIF),
        ("image/webp;q=0", None),
        ("image/webp ; Q=0.001", Format.WEBP),
        ("image/jpeg, image/webp;q=0.5", None),
        ("text/html, image/webp;q=0.5", Format.WEBP),
        ("image/avif;q=2", Format.AVIF),  # no weight, so that it is ignored
        ("image/avif;profile=x;q=0.1, image/webp;q=0.2", Format.WEBP),
        ("nonsense, image/webp", Format.WEBP),
    ],
)
def test_the_format_that_auto_becomes(accept: str, expected: Format | None) -> None:
    assert preferred_format(accept, ALL) is expected


def test_only_what_is_allowed_is_chosen() -> None:
    assert preferred_format(CHROMIUM, ("jpeg", "webp")) is Format.WEBP
    assert preferred_format(CHROMIUM, ("jpeg",)) is None
    assert preferred_format("image/jxl, image/webp", ("jpeg", "webp")) is Format.WEBP


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", False),
        ("*/*", False),
        ("application/zip", True),
        ("application/zip, */*", True),
        ("application/zip;q=0", False),
        ("application/zip, multipart/mixed", False),
        ("application/zip, multipart/mixed;q=0.9", True),
        ("application/zip;q=0.5, */*", False),
        ("application/zip;q=0.5, multipart/*", False),
        ("application/*", False),
    ],
)
def test_a_zip_is_sent_to_who_names_it(accept: str, expected: bool) -> None:  # noqa: FBT001 - a parameter of cases
    assert prefers_zip(accept) is expected


@given(st.text(max_size=80))
def test_any_header_is_accepted(accept: str) -> None:
    preferred_format(accept, ALL)
    prefers_zip(accept)
