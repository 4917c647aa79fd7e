"""The figures of one gateway, and of all gateways."""

import logging

import pytest

from vipsrv.server.ops.snapshots import Answers, Snapshots


class Others:
    """Other gateways, whose answers a test chooses."""

    def __init__(self) -> None:
        self.answers = Answers()
        self.asked: list[str] = []

    async def ask(self, name: str) -> Answers:
        self.asked.append(name)
        return self.answers


async def test_a_single_gateway_returns_its_own_value() -> None:
    snapshots = Snapshots()
    numbers = iter((1, 2))
    snapshots.add("count", lambda: next(numbers))

    assert await snapshots.collect("count") == [1]
    assert await snapshots.collect("count") == [2], "it is made when it is asked for"


async def test_a_value_may_be_awaited() -> None:
    async def count() -> int:
        return 1

    snapshots = Snapshots()
    snapshots.add("count", count)
    assert await snapshots.collect("count") == [1]


async def test_the_values_of_other_gateways_follow() -> None:
    others = Others()
    snapshots = Snapshots(others)
    snapshots.add("count", lambda: 1)
    others.answers = Answers([2, 3])

    assert await snapshots.collect("count") == [1, 2, 3]
    assert others.asked == ["count"]


async def test_a_gateway_that_does_not_answer_is_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    others = Others()
    snapshots = Snapshots(others)
    snapshots.add("count", lambda: 1)
    others.answers = Answers([2], ("gateway 3",))

    survey = await snapshots.survey("count")
    await snapshots.survey("count")

    assert survey == Answers([1, 2], ("gateway 3",))
    assert [one.message for one in caplog.records] == [
        "figures are incomplete: gateway 3 did not answer in time"
    ], "told once, not with each scrape"

    others.answers = Answers([2, 3])
    assert await snapshots.collect("count") == [1, 2, 3]
    assert caplog.records[-1].message == "figures are complete again: all gateways answer"


async def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        await Snapshots().collect("nothing")


def test_a_name_has_one_provider() -> None:
    snapshots = Snapshots()
    snapshots.add("count", lambda: 1)
    with pytest.raises(ValueError, match="already"):
        snapshots.add("count", lambda: 2)
