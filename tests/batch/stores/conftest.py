"""A server of each kind for the tests of object stores."""

from collections.abc import Iterator

import pytest

from tests.support.s3_server import S3Kind, S3Server


@pytest.fixture(scope="module", params=S3Kind, ids=lambda kind: kind.value)
def s3(request: pytest.FixtureRequest) -> Iterator[S3Server]:
    """One server for the tests of a module; each test makes a bucket of its own."""
    if request.param.program is None:
        pytest.skip(f"{request.param.value} is not installed")
    with S3Server(request.param) as server:
        yield server
