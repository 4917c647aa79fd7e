"""The report of a successful reply, which is formatted by hand."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipsrv.errors import InternalError
from vipsrv.options import ImageInfo, OutputInfo, Placeholders, ResizeReport
from vipsrv.server.report import report_json
from vipsrv.server.timeline import Timeline
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
    OutputInfo,
    width=sizes,
    height=sizes,
    format=names,
    quality=st.integers(0, 100),
    size=sizes,
    frames=st.none() | st.integers(1, 10_000),
    ssim=st.none() | st.integers(0, 10**5).map(lambda parts: parts / 10**5),
)
# What the channel lets through.
placeholders = st.builds(
    Placeholders,
    thumbhash=st.from_regex("[A-Za-z0-9+/]{4,46}={0,2}", fullmatch=True),
    blurhash=st.none() | st.from_regex(r"[A-Za-z0-9#$%*+,.:;=?@\[\]^_{|}~-]{6,48}", fullmatch=True),
    average=st.none() | st.from_regex("#[0-9a-f]{6}", fullmatch=True),
)


@given(
    images, st.lists(outputs, min_size=1, max_size=3).map(tuple[OutputInfo, ...]), st.none() | placeholders
)
def test_a_client_reads_the_report(
    source: ImageInfo, results: tuple[OutputInfo, ...], placeholder: Placeholders | None
) -> None:
    timeline = Timeline(arrived=4.0, received=5.0, started=5.5, ended=7.0, replied=8.0)
    meta, size = report_json(Outcome(source=source, outputs=results, placeholder=placeholder), timeline)
    read = ResizeReport.from_meta(json.loads(meta))
    assert size == sum(output.size for output in results)
    assert (read.source, read.outputs, read.placeholder) == (source, results, placeholder)
    assert read.ratio == pytest.approx(source.size / size, abs=0.0005)
    assert (read.ms.receive, read.ms.queue, read.ms.process, read.ms.total) == (1000, 500, 1500, 4000)
    assert json.loads(meta) == json.loads(json.dumps(read.to_meta()))  # and nothing more


@given(images)
def test_the_report_on_an_info_is_the_source_alone(source: ImageInfo) -> None:
    meta, size = report_json(Outcome(source=source), Timeline(0.0))
    assert size == 0
    assert json.loads(meta).keys() == {"source"}
    assert ImageInfo.from_meta(json.loads(meta)["source"]) == source


def test_a_success_without_an_image_is_an_internal_error() -> None:
    with pytest.raises(InternalError):
        report_json(Outcome(), Timeline(0.0))
