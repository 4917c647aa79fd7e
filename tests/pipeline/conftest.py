"""One libvips for the tests of the pipeline, set up as a worker does it."""

import pytest

from vipsrv import pipeline


@pytest.fixture(scope="session", autouse=True)
def formats() -> tuple[pipeline.FormatInfo, ...]:
    """The formats that this libvips reads."""
    return pipeline.start()
