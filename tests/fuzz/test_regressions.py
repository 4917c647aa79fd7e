"""Inputs that once showed a bug or were expensive: each is still parsed or refused, within its prediction."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fuzz.regressions import IMAGES, keep, kept
from fuzz.targets import TARGETS
from tests.support.bombs import large_gif, png
from tests.support.images import jpeg
from tests.workers.child.child_process import ChildProcess
from vipsrv import pipeline
from vipsrv.errors import InternalError, RequestError
from vipsrv.options import ResizeOptions
from vipsrv.pipeline.cost import predict
from vipsrv.pipeline.probe import read_header

SHARED = Path(__file__).parents[2].parent / "shared" / "cases"
SMALL = ResizeOptions(width=32, height=24)
SLACK = 16 << 20
"""Bytes that a process takes for other reasons than its job: code is loaded, malloc keeps memory."""


@pytest.fixture(scope="module", autouse=True)
def _pipeline() -> None:
    pipeline.start()


def corrupt_gif() -> bytes:
    """6,000 × 6,000 pixels, whose first code is not in the table."""
    image = large_gif(6000)
    return image[: image.rindex(b"\x02\x02\x44")] + b"\x02\x03\xff\xff\xff\0;"


MADE: dict[str, Callable[[], bytes]] = {
    "corrupt.gif": corrupt_gif,
    "interlaced-1bit.png": lambda: png(8000, 8000, bits=1, interlaced=True),
    "interlaced-16bit.png": lambda: png(3000, 3000, bits=16, interlaced=True),
}


def images() -> Iterator[pytest.ParameterSet]:
    """Files that are kept, images made by code, and the shared ones where they are present."""
    files = sorted(IMAGES.iterdir())
    if SHARED.is_dir():
        files += [*sorted((SHARED / "slow").iterdir()), SHARED / "png_interlaced_1bit_20000x20000.png"]
    for path in files:
        yield pytest.param(path.read_bytes, id=path.name)
    for name, make in MADE.items():
        yield pytest.param(make, id=name)


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_kept_of_a_target_is_parsed_or_refused(name: str) -> None:
    inputs = kept(name)
    assert inputs
    for data in inputs:
        TARGETS[name].accepts(data)


def test_an_input_is_kept_once(tmp_path: Path) -> None:
    assert kept("x", tmp_path) == []
    assert keep("x", [b"two", b"\0", b""], tmp_path) == 3
    assert keep("x", [b"two", b"new"], tmp_path) == 4
    assert kept("x", tmp_path) == [b"", b"\0", b"new", b"two"]


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is in /proc")
@pytest.mark.parametrize("make", list(images()))
def test_an_image_takes_no_more_memory_than_predicted(make: Callable[[], bytes]) -> None:
    image = make()
    upload = pipeline.Upload.from_memory(image)
    predicted = predict(upload, read_header(upload), (SMALL,)).memory
    limits = {"max_pixels": 1 << 30, "max_expansion": 1 << 30, "job_memory": 1 << 30}
    child = ChildProcess(limits)
    try:
        child.start()
        child.send_resize(jpeg())  # loads what any job needs
        child.reply()
        before = child.status("VmHWM")
        child.send_resize(image, options=json.dumps({"width": SMALL.width, "height": SMALL.height}).encode())
        head, _ = child.reply()
        taken = (child.status("VmHWM") - before) * 1024
        assert not isinstance(head.error, InternalError)
        assert isinstance(head.error, RequestError | None)
        assert taken <= predicted + SLACK
        child.check_that_it_works()
    finally:
        child.close()
