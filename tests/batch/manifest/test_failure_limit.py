"""How many images may fail."""

import pytest

from vipsrv.batch.manifest.failure_limit import FailureLimit
from vipsrv.errors import TooManyFailures


def count(limit: FailureLimit, text: str) -> None:
    for one in text:
        limit.count(ok=one == "+")


def test_without_a_limit_all_may_fail() -> None:
    count(FailureLimit(None, at_least=1), "-" * 1000)


def test_the_share_counts_from_the_least_number_on() -> None:
    limit = FailureLimit(0.5, at_least=4)
    count(limit, "---")
    with pytest.raises(TooManyFailures, match=r"4 of 4 images failed, more than 50 %"):
        count(limit, "-")


def test_as_many_as_allowed_may_fail() -> None:
    limit = FailureLimit(0.5, at_least=4)
    count(limit, "--+++-+-")
    count(limit, "+-")
    with pytest.raises(TooManyFailures, match="6 of 11"):
        count(limit, "-")


def test_none_may_fail() -> None:
    limit = FailureLimit(0, at_least=1)
    count(limit, "+++")
    with pytest.raises(TooManyFailures, match="1 of 4"):
        count(limit, "-")


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_from_nothing_to_all(share: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        FailureLimit(share)
