"""The meta of a successful reply, which is written out by hand."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipsrv.errors import InternalError
from vipsrv.options import ImageInfo, OutputInfo, ResizeReport
from vipsrv.server.request import Request, success_meta
from vipsrv.workers.job import Outcome

sizes = st.integers(1, 2**40)
names = st.from_regex("[a-z][a-z0-9-]{0,15}", fullmatch=True)  # what the channel lets through
images = st.builds(
    ImageInfo,
    format=names,
    width=sizes,
    height=sizes,
    pages=sizes,
    has_alpha=st.booleans(),
    orientation=st.integers(1, 8),
    size=sizes,
)
outputs = st.builds(
    OutputInfo, width=sizes, height=sizes, format=names, quality=st.integers(0, 100), size=sizes
)


@given(images, st.lists(outputs, min_size=1, max_size=3).map(tuple[OutputInfo, ...]))
def test_it_is_the_report_that_a_client_reads(source: ImageInfo, results: tuple[OutputInfo, ...]) -> None:
    now = time.monotonic()
    request = Request(2, 2, 1, {}, now - 4.0, received=now - 3.0)
    meta, size = success_meta(
        request, Outcome(source=source, outputs=results, started=now - 2.5, ended=now - 1)
    )
    read = ResizeReport.from_meta(json.loads(meta))
    assert size == sum(output.size for output in results)
    assert (read.source, read.outputs) == (source, results)
    assert read.ratio == pytest.approx(source.size / size, abs=0.0005)
    assert (read.ms.receive, read.ms.queue, read.ms.process) == (1000, 500, 1500)
    assert read.ms.total >= 4000
    assert json.loads(meta) == json.loads(json.dumps(read.to_meta()))  # and nothing more


@given(images)
def test_an_info_is_the_source_alone(source: ImageInfo) -> None:
    meta, size = success_meta(Request(2, 3, 1, {}, 0.0), Outcome(source=source))
    assert size == 0
    assert json.loads(meta).keys() == {"source"}
    assert ImageInfo.from_meta(json.loads(meta)["source"]) == source


def test_a_success_without_an_image_is_a_fault_of_ours() -> None:
    with pytest.raises(InternalError):
        success_meta(Request(2, 2, 1, {}, 0.0), Outcome())
