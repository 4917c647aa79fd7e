"""What results are called."""

from typing import Any

import pytest

from vipsrv.batch.outputs import Outputs, size_text
from vipsrv.batch.problems import ImageFailed
from vipsrv.client import ResizedImage
from vipsrv.options import Fit, Format, ResizeOptions


def option(width: int | None = 320, height: int | None = None, format: Format = Format.JPEG) -> ResizeOptions:  # noqa: A002 - as in ResizeOptions
    return ResizeOptions(width=width, height=height, fit=Fit.INSIDE, format=format)


def result(width: int, height: int, format: str = "jpeg") -> ResizedImage:  # noqa: A002 - as in ResizedImage
    return ResizedImage(data=b"x", width=width, height=height, format=format, quality=85, ratio=1.0)


@pytest.mark.parametrize(
    ("name", "key", "expected"),
    [
        ("{folder}{stem}_{size}.{ext}", "a/b/photo.png", "a/b/photo_320x.jpg"),
        ("{folder}{stem}_{size}.{ext}", "photo.png", "photo_320x.jpg"),
        ("{stem}.{source_ext}.{ext}", "a/photo.tar.png", "photo.tar.png.jpg"),
        ("{stem}.{format}", "a/photo", "photo.jpeg"),
        ("{stem}-{source_ext}", "a/.hidden", ".hidden-"),
        ("{folder}small/{stem}-{width}x{height}.{ext}", "a/photo.png", "a/small/photo-320x200.jpg"),
        ("{{x}}{stem}", "photo.png", "{x}photo"),
    ],
)
def test_a_template(name: str, key: str, expected: str) -> None:
    assert Outputs((option(),), name).keys(key, [result(320, 200)]) == (expected,)


def test_what_a_result_decides_stays_open_in_the_planned_name() -> None:
    outputs = Outputs((option(format=Format.AUTO), option(640)), "{stem}_{width}.{ext}")
    assert outputs.planned("a.png") == ("a_{width}.{ext}", "a_{width}.jpg")
    assert outputs.keys("a.png", [result(320, 200, "webp"), result(640, 400)]) == ("a_320.webp", "a_640.jpg")


@pytest.mark.parametrize(
    ("options", "text"),
    [(option(320), "320x"), (option(None, 200), "x200"), (option(800, 600), "800x600")],
)
def test_a_size_as_it_was_asked_for(options: ResizeOptions, text: str) -> None:
    assert size_text(options) == text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("{stem}_{frame}", r"\{frame\} is none of its fields"),
        ("{stem!r}", "nothing after"),
        ("{stem:>9}", "nothing after"),
        ("{stem", "expected"),
        ("{}", r"\{\} is none"),
        ("{stem.__class__}", "is none of its fields"),
        ("{folder}small.jpg", r"has no \{stem\}"),
        ("/{stem}", "must be a name"),
        ("../{stem}", "must be a name"),
        ("{stem}//x", "must be a name"),
        (".vipsrv/{stem}", "for the manifest"),
        ("{stem}\0", "no zero byte"),
    ],
)
def test_a_template_that_cannot_be(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Outputs((option(),), name)


def test_several_results_must_differ_in_name() -> None:
    with pytest.raises(ValueError, match="same name"):
        Outputs((option(320), option(640)), "{stem}.{ext}")
    with pytest.raises(ValueError, match="same name"):
        Outputs((option(320), option(320)), "{stem}_{width}.{ext}")
    Outputs((option(320), option(320, format=Format.PNG)), "{stem}.{ext}")
    outputs = Outputs((option(320), option(None, 240)), "{stem}_{width}x{height}.jpg")
    with pytest.raises(ImageFailed, match=r"photo_320x240\.jpg") as failed:
        outputs.keys("photo.png", [result(320, 240), result(320, 240)])
    assert (failed.value.status, failed.value.code) == (409, "name_conflict")


@pytest.mark.parametrize("key", ["../photo.jpg", "/photo.jpg", "a//b.jpg", "./a.jpg", ".vipsrv/parts/a.jpg"])
def test_a_key_that_would_leave_the_destination(key: str) -> None:
    outputs = Outputs((option(),))
    with pytest.raises(ImageFailed, match="would be called") as planned:
        outputs.planned(key)
    with pytest.raises(ImageFailed, match="would be called") as made:
        outputs.keys(key, [result(320, 200)])
    assert planned.value.code == made.value.code == "bad_name"


def test_what_may_be_given_for_outputs() -> None:
    one = option()
    assert Outputs.of(one) == Outputs.of([one]) == Outputs.of(Outputs((one,)))
    wrongs: list[list[Any]] = [[], [320]]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="outputs"):
            Outputs.of(wrong)


def test_the_digest_tells_options_and_names_apart() -> None:
    same = Outputs((option(),)).digest
    assert Outputs((option(),)).digest == same
    others = [Outputs((option(321),)), Outputs((option(),), "{stem}"), Outputs((option(), option(321)))]
    assert len({same, *(one.digest for one in others)}) == 4
