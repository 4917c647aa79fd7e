"""The S3 server of the tests."""

import httpx
import pytest

from tests.support.s3_server import S3Kind, S3Server


@pytest.mark.parametrize("kind", S3Kind, ids=lambda kind: kind.value)
def test_it_keeps_its_objects_when_it_is_restarted_and_lets_nobody_else_in(kind: S3Kind) -> None:
    if kind.program is None:
        pytest.skip(f"{kind.value} is not installed")
    with S3Server(kind) as server:
        process = server._process
        bucket = server.make_bucket("a-bucket")
        (bucket / "a.jpg").write_bytes(b"1")
        server.restart(kill=True)
        assert (bucket / "a.jpg").read_bytes() == b"1"
        assert httpx.get(f"{server.endpoint}/a-bucket/a.jpg").status_code in {400, 403}
    assert process is not None
    assert process.poll() is not None
    assert not bucket.exists()
