"""Set up libvips once for the tests of the pipeline, as a worker does."""

import pytest

from vipsrv import pipeline


@pytest.fixture(scope="session", autouse=True)
def formats() -> tuple[pipeline.FormatInfo, ...]:
    """The formats that are read with this libvips."""
    return pipeline.start()
