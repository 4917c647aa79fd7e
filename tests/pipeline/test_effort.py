"""The option ``effort``: what each encoder makes of it, what it costs, and how a server limits it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import vipsrv.protocol
from tests.pipeline.run import LIMITS, run, sample
from tests.support.image_comparison import mean_abs_difference, open_exact
from tests.support.images import jpeg
from vipsrv import pipeline
from vipsrv.errors import BadRequest, TooLarge
from vipsrv.options import MAX_EFFORT, Format, ImageInfo, ResizeOptions
from vipsrv.pipeline.cost import Cost, NeedsHeavyLane, admit, predict
from vipsrv.pipeline.formats.writer import EncoderEffort, Writer
from vipsrv.pipeline.output_format import likely_writer
from vipsrv.pipeline.probe import read_header

SPECIFICATION = Path(vipsrv.protocol.__file__).parent / "README.md"
DEFAULTS = {"avif": 1, "webp": 4, "png": 6, "gif": 4}
WITHOUT = ("tiff",)
_NO_IMAGE = ImageInfo(format="jpeg", width=1, height=1, pages=1, has_alpha=False, orientation=1, size=1)


def writer(name: str) -> Writer:
    return likely_writer(Format(name), _NO_IMAGE)


def asked(name: str, effort: int | None, **others: Any) -> ResizeOptions:
    options: dict[str, Any] = {"width": 90, "height": 60, "format": name, "effort": effort}
    return ResizeOptions(**(options | others))


def made(name: str, effort: int | None, **others: Any) -> bytes:
    (output,) = run(sample("jpeg"), asked(name, effort, **others)).outputs
    return bytes(output.data)


def cost(name: str, effort: int | None, **others: Any) -> Cost:
    upload = pipeline.Upload.from_memory(jpeg(64, 48))
    return predict(upload, read_header(upload), [asked(name, effort, **others)])


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_higher_effort_makes_a_smaller_file(name: str) -> None:
    least, most = made(name, 0, width=300, height=200), made(name, 6, width=300, height=200)
    assert len(most) < len(least)


@pytest.mark.parametrize(("name", "effort"), DEFAULTS.items())
def test_the_default_is_one_of_the_efforts(name: str, effort: int) -> None:
    assert made(name, None) == made(name, effort) != made(name, 0)


@pytest.mark.parametrize(("name", "effort"), [("avif", 3), ("webp", 4)])
def test_lossless_results_have_a_default_of_their_own(name: str, effort: int) -> None:
    results = {one: made(name, one, lossless=True) for one in (None, 0, effort)}
    assert results[None] == results[effort] != results[0]


@pytest.mark.parametrize("name", WITHOUT)
def test_formats_without_an_effort_ignore_it(name: str) -> None:
    assert made(name, None) == made(name, 0) == made(name, MAX_EFFORT)
    assert cost(name, None) == cost(name, MAX_EFFORT)


def test_a_jpeg_gets_huffman_tables_of_its_own_from_the_middle_on() -> None:
    results = [made("jpeg", effort) for effort in (None, 0, 4, 5, MAX_EFFORT)]
    assert results[0] == results[1] == results[2]
    assert results[3] == results[4]
    plain, optimised = (open_exact(results[number]) for number in (0, 3))
    assert len(results[3]) < 0.95 * len(results[0])
    assert mean_abs_difference(plain, optimised) < 2
    assert cost("jpeg", 5).seconds > cost("jpeg", 4).seconds == cost("jpeg", None).seconds


def test_auto_uses_the_effort_of_the_format_that_it_gives() -> None:
    def results(name: str) -> list[bytes]:
        outputs = [asked(name, effort) for effort in (0, 6)]
        return [bytes(output.data) for output in run(sample("webp"), *outputs).outputs]

    assert results("auto") == results("webp")


def test_the_search_of_max_bytes_uses_the_effort() -> None:
    def quality(effort: int) -> int:
        options = asked("webp", effort, width=300, height=200, max_bytes=6000)
        (output,) = run(sample("jpeg"), options).outputs
        return output.info.quality

    assert quality(6) > quality(0)


@pytest.mark.parametrize(
    ("name", "argument", "first", "last"),
    [
        ("avif", "effort", [0, 1], [6, 6]),
        ("webp", "effort", [0, 1], [6, 6]),
        ("png", "compression", [1, 1], [8, 9]),
        ("gif", "effort", [1, 1], [8, 9]),
    ],
)
def test_what_an_encoder_gets(name: str, argument: str, first: list[int], last: list[int]) -> None:
    values = [writer(name).arguments(asked(name, effort))[argument] for effort in range(MAX_EFFORT + 1)]
    assert values[:2] == first
    assert values[2:6] == [2, 3, 4, 5]
    assert values[-2:] == last


def test_an_encoder_states_a_value_for_each_effort() -> None:
    with pytest.raises(ValueError, match="quantisation: 9 values for 10 efforts"):
        EncoderEffort(argument="quantisation", values=tuple(range(9)), times=(1.0,) * 10)


# What it costs


@pytest.mark.parametrize(("name", "lossless"), [*((name, False) for name in DEFAULTS), ("avif", True)])
def test_the_predicted_time_follows_the_effort(name: str, *, lossless: bool) -> None:
    times = [cost(name, effort, lossless=lossless).seconds for effort in range(MAX_EFFORT + 1)]
    assert times == sorted(times)
    assert times[-1] > 2 * times[0]
    default = 3 if lossless else DEFAULTS[name]
    assert cost(name, None, lossless=lossless).seconds == times[default]


def test_the_memory_of_an_avif_follows_the_effort() -> None:
    default, four = (cost("avif", effort, width=1000, height=1000).memory for effort in (None, 4))
    assert four - default == 20 * 1_000_000
    assert cost("webp", MAX_EFFORT).memory == cost("webp", None).memory


def admitted(options: ResizeOptions, *, seconds: float | None = None, heavy_ok: bool = True) -> Cost:
    upload = pipeline.Upload.from_memory(jpeg(64, 48))
    pages = [(read_header(upload), [options])]
    return admit(upload, pages, config=LIMITS, seconds=seconds, heavy_ok=heavy_ok)


def test_the_longest_efforts_of_an_avif_are_heavy() -> None:
    admitted(asked("avif", 3, width=300, height=450), heavy_ok=False)
    with pytest.raises(NeedsHeavyLane):
        admitted(asked("avif", 6, width=300, height=450), heavy_ok=False)


def test_an_effort_that_cannot_meet_the_deadline_is_refused() -> None:
    assert admitted(asked("avif", 0, width=4000, height=3000), seconds=10).seconds < 1
    with pytest.raises(TooLarge, match=r"^the job would take at least 14\.\d\d s of computing; its deadline"):
        admitted(asked("avif", 9, width=4000, height=3000), seconds=10)


# What a server allows


def test_a_server_may_allow_less() -> None:
    upload = pipeline.Upload.from_memory(jpeg(64, 48))
    few = replace(LIMITS, max_effort=2)

    def refusal(name: str, effort: int | None) -> str:
        try:
            pipeline.resize(upload, (asked(name, effort),), config=few)
        except BadRequest as error:
            return error.message
        return ""

    assert refusal("avif", 3) == "effort: 3 is more than this server's max-effort, 2"
    assert refusal("tiff", 3) == ""  # it has none
    assert [refusal("avif", 2), refusal("jpeg", 2), refusal("png", None)] == [""] * 3


def test_the_specification_has_the_defaults() -> None:
    text = SPECIFICATION.read_text()
    section = text[text.index("#### Effort") :]
    for name, effort in DEFAULTS.items():
        row = re.search(rf"^\| `{name}` \| [^|]+ \| (\d)(?:; lossless (\d))? \|", section, re.MULTILINE)
        assert row is not None, name
        assert int(row[1]) == effort
        encoder = writer(name).effort
        assert encoder is not None
        assert (None if row[2] is None else int(row[2])) == encoder.lossless_default
