"""The cases beside the repository (../shared/cases): files of public bug reports with their right results.

``cases.json`` says what is right: the ``size`` in pixels; ``pixels``, RGB or RGBA at (x, y), ``within`` so
much a channel (where the alpha is 0, only that counts); ``alpha`` likewise; the ``mean`` of the grey, one of
a list; bytes that the result must not hold (``absent``); the most ``seconds`` it may take; the status codes
with which it may be refused (``may_refuse``). The same checks are in ``check.py`` there, which asks a server.
"""

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vipsrv import pipeline
from vipsrv.errors import RequestError
from vipsrv.options import ResizeRequest
from vipsrv.worker_config import WorkerConfig

FOLDER = Path(__file__).parents[3] / "shared" / "cases"
_LISTED = FOLDER / "cases.json"

# Cases whose file cannot give the listed values, and why. One that becomes right fails the test until it is
# removed here.
LOST: dict[str, str] = {
    "tiff_grey_12bit.tif to png": "the samples have lost their four highest bits: 30 and 46 are stored alike",
}

Case = dict[str, Any]


def _cases() -> list[Case]:
    found: list[Case] = json.loads(_LISTED.read_text()) if _LISTED.is_file() else []
    return found


def _name(case: Case) -> str:
    return f"{case['file']} to {case['options'].get('format', 'jpeg')}"


def _parameters() -> Iterator[Any]:
    for case in _cases():
        lost = LOST.get(_name(case))
        marks = [pytest.mark.xfail(strict=True, reason=lost)] if lost else []
        yield pytest.param(case, id=_name(case), marks=marks)


def _faults(case: Case, data: bytes) -> Iterator[str]:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        if list(image.size) != case.get("size", list(image.size)):
            yield f"{image.size} instead of {case['size']}"
            return
        for point in case.get("pixels", []):
            right = point["is"]
            got = image.convert("RGBA" if len(right) == 4 else "RGB").getpixel(tuple(point["at"]))
            assert isinstance(got, tuple)
            pairs = [(got[3], 0)] if right[3:] == [0] else list(zip(got, right, strict=True))
            if any(abs(one - other) > point["within"] for one, other in pairs):
                yield f"{point['at']} is {got}, not {right}"
        for point in case.get("alpha", []):
            opacity = image.getchannel("A").getpixel(tuple(point["at"])) if "A" in image.getbands() else 255
            assert isinstance(opacity, int)
            if abs(opacity - point["is"]) > point["within"]:
                yield f"the alpha at {point['at']} is {opacity}, not {point['is']}"
        if "mean" in case:
            pixels = image.convert("L").tobytes()
            mean = sum(pixels) / len(pixels)
            if min(abs(mean - one) for one in case["mean"]) > case["within"]:
                yield f"the mean grey is {mean:.0f}, not one of {case['mean']}"
        if "absent" in case and case["absent"].encode() in data:
            yield f"it holds {case['absent']}"


@pytest.mark.skipif(not _LISTED.is_file(), reason="the cases are not beside the repository (../shared/cases)")
@pytest.mark.parametrize("case", list(_parameters()))
def test_case_is_right(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    upload = pipeline.Upload.from_memory((FOLDER / case["file"]).read_bytes())
    before = time.process_time()
    try:
        result = pipeline.resize(
            upload, ResizeRequest.from_meta(case["options"]).outputs, config=WorkerConfig()
        )
    except RequestError as error:
        if error.status not in case.get("may_refuse", []):
            raise
    else:
        assert list(_faults(case, result.outputs[0].data)) == []
    assert time.process_time() - before < case.get("seconds", 60)


def test_every_case_that_is_not_right_yet_exists() -> None:
    if _LISTED.is_file():
        assert set(LOST) <= {_name(case) for case in _cases()}
