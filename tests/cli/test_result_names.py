"""The names of the results of many images."""

from pathlib import Path

import pytest

from vipsrv.batch import outputs as batch_outputs
from vipsrv.cli.result_index import ExistingResults, ResultIndex
from vipsrv.cli.result_names import FIELDS, NameTemplate
from vipsrv.client import ResizedImage
from vipsrv.options import Fit, Format, ResizeOptions

WIDE = ResizeOptions(width=320, fit=Fit.INSIDE)
EXACT = ResizeOptions(width=80, height=60, format=Format.WEBP)
AUTO = ResizeOptions(height=90, fit=Fit.INSIDE, format=Format.AUTO)
INSIDE = ResizeOptions(width=80, height=60, fit=Fit.INSIDE)
NEVER_LARGER = ResizeOptions(width=320, fit=Fit.INSIDE, enlarge=False)
OUT = Path("out")


def result(width: int, height: int, format_: str = "jpeg") -> ResizedImage:
    return ResizedImage(data=b"x", width=width, height=height, format=format_, quality=85, ratio=1.0)


def template(text: str | None, *options: ResizeOptions, folder: Path | None = None) -> NameTemplate:
    return NameTemplate.of(text, options, folder)


def test_the_fields_are_those_of_a_batch() -> None:
    assert set(FIELDS) == set(batch_outputs._FIELDS)
    text = "{folder}{stem}.{source_ext}_{size}_{width}x{height}.{format}.{ext}"
    (path,) = template(text, AUTO, folder=OUT).paths(Path("in/sub/a.b.PNG"), "sub/", [result(120, 90)])
    assert str(path) == "out/sub/a.b.PNG_x90_120x90.jpeg.jpg"
    (key,) = batch_outputs.Outputs((AUTO,), text).keys("sub/a.b.PNG", [result(120, 90)])
    assert key == "sub/a.b.PNG_x90_120x90.jpeg.jpg"


@pytest.mark.parametrize(
    ("options", "folder", "names"),
    [
        ([WIDE], None, ["in/processed_a.jpg"]),
        ([WIDE], OUT, ["out/sub/processed_a.jpg"]),
        ([EXACT], OUT, ["out/sub/processed_a.webp"]),
        ([WIDE, EXACT], None, ["in/processed_a_320x240.jpg", "in/processed_a_80x60.webp"]),
        # The same numbers as for a single image.
        ([WIDE, NEVER_LARGER], None, ["in/processed_a_320x240.jpg", "in/processed_a_320x240_2.jpg"]),
    ],
)
def test_the_default_is_that_of_a_single_image(
    options: list[ResizeOptions], folder: Path | None, names: list[str]
) -> None:
    results = [result(one.width or 0, 60 if one is EXACT else 240, one.format) for one in options]
    found = template(None, *options, folder=folder).paths(Path("in/a.png"), "sub/", results)
    assert [str(path) for path in found] == names


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("{stem}", [WIDE], "results beside their images need other names"),
        ("{size}/{stem}.{ext}", [WIDE], "results beside their images need other names"),
        ("x_{size}", [WIDE], "has no {stem}"),
        ("{stem}{nonsense}", [WIDE], "{nonsense} is not a field"),
        ("{stem.parent}x", [WIDE], "{stem.parent} is not a field"),
        ("{stem:>9}x", [WIDE], "{stem} takes nothing after"),
        ("{stem!r}x", [WIDE], "{stem} takes nothing after"),
        ("{stem", [WIDE], "expected '}' before end of string"),
        ("{}{stem}", [WIDE], "{} is not a field"),
        ("/in/{stem}x", [WIDE], "must be a relative path"),
        ("../{stem}x", [WIDE], "each part between / must be a name"),
        ("a//{stem}x", [WIDE], "each part between / must be a name"),
        ("{stem}x/", [WIDE], "each part between / must be a name"),
        ("{stem}\0x", [WIDE], "each part between / must be a name"),
        ("{folder}{stem}x", [WIDE], "{folder} is for --output-dir"),
        ("{stem}x.{ext}", [WIDE, INSIDE], "several results of an image would have one name"),
        ("", [WIDE], "has no {stem}"),
    ],
)
def test_a_template_that_cannot_be_used(text: str, options: list[ResizeOptions], words: str) -> None:
    with pytest.raises(ValueError, match=r"^--name ") as caught:
        template(text, *options)
    assert words in str(caught.value)


def test_two_results_of_an_image_with_one_name() -> None:
    names = template("{stem}_{width}.{ext}", WIDE, INSIDE)
    with pytest.raises(ValueError, match=r"two of its results would be called a_80\.jpg; add \{size\}"):
        names.paths(Path("a.png"), "", [result(80, 60), result(80, 50)])


def test_what_is_known_before_an_image_is_sent() -> None:
    image = Path("in/a.png")
    assert template("{stem}_{size}.{ext}", WIDE).known(image, "") == [Path("in/a_320x.jpg")]
    assert template("{stem}_{width}.{ext}", WIDE).known(image, "") is None
    assert template("{stem}_{size}.{ext}", AUTO).known(image, "") is None


@pytest.mark.parametrize(
    ("text", "options", "yes", "no"),
    [
        ("{stem}_{size}.{ext}", WIDE, ["a_320x.jpg", "a_b_320x.jpg"], ["a_640x.jpg", "a_320x.png"]),
        ("{stem}_{width}.{ext}", WIDE, ["a_320.jpg"], ["a_321.jpg", "a_320.jpgx"]),
        ("{stem}_{width}.{ext}", INSIDE, ["a_80.jpg", "a_7.jpg"], ["a_x.jpg"]),
        ("{stem}_{width}.{ext}", NEVER_LARGER, ["a_7.jpg"], ["_7.jpg"]),
        ("{width}/{stem}_{height}.{ext}", AUTO, ["a_90.png"], ["a_91.png"]),
        ("x-{stem}-{stem}.{source_ext}", WIDE, ["x-a-a.png"], ["x-a-b.png"]),
    ],
)
def test_what_looks_like_a_result(text: str, options: ResizeOptions, yes: list[str], no: list[str]) -> None:
    names = template(text, options)
    for name in yes:
        match = names.is_like_a_result(name)
        assert match is not None, name
        assert match["stem"].startswith("a")
    assert [name for name in no if names.is_like_a_result(name)] == []


def test_results_that_exist(tmp_path: Path) -> None:
    image, existing = tmp_path / "a.png", ExistingResults()

    def exist(text: str, *options: ResizeOptions) -> bool:
        return existing.exist(template(text, *options).patterns(image, ""))

    for name in ("a_320x240.jpg", "a_80x60.webp", "b_80x60.jpg", "a_x.png"):
        (tmp_path / name).touch()
    each = "{stem}_{width}x{height}.{ext}"
    assert exist(each, WIDE)
    assert exist(each, WIDE, EXACT)
    assert exist(each, NEVER_LARGER)
    # One file is not two results.
    assert not exist(each, WIDE, NEVER_LARGER)
    assert not exist(each, ResizeOptions(width=321, fit=Fit.INSIDE))
    assert exist("{stem}_x.{ext}", AUTO)
    assert not exist("{stem}_{size}.{ext}", WIDE)
    assert not exist("none/{stem}_{width}.{ext}", INSIDE)
    # In another folder the names are others.
    assert not existing.exist(template(each, INSIDE).patterns(tmp_path / "c.png", ""))


def test_the_index_knows_what_it_has_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    index = ResultIndex()
    assert index.take_image(Path("a.jpg"))
    assert not index.take_image(tmp_path / "x" / ".." / "a.jpg")
    index.take_results([Path("a_1.jpg"), Path("a_2.jpg")], Path("a.jpg"))
    assert not index.take_image(Path("a_1.jpg"))
    with pytest.raises(ValueError, match=r"another image of this call has the result .*a_2\.jpg"):
        index.take_results([Path("a_3.jpg"), tmp_path / "a_2.jpg"], Path("b.jpg"))
    with pytest.raises(ValueError, match=r"would replace a\.jpg, which is an image of this call"):
        index.take_results([Path("a.jpg")], Path("b.jpg"))
    index.close()
