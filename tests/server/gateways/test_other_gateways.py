"""A gateway that asks for the figures of the others, and is asked for its own; the test is the supervisor."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from vipsrv.server.gateways import other_gateways as module
from vipsrv.server.gateways.messages import Channel, Kind, Message
from vipsrv.server.gateways.other_gateways import OtherGateways
from vipsrv.server.ops.snapshots import Answers, Snapshots

SECONDS = 30


class Gateway:
    """The gateway's side, which follows its channel, and the ``supervisor`` side for the test."""

    def __init__(self, channel: Channel, supervisor: Channel) -> None:
        self.others = OtherGateways(channel)
        self.snapshots = Snapshots(self.others)
        self.supervisor = supervisor
        self._channel = channel
        self._following = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        while (message := await self._channel.receive()) is not None:
            self.others.handle(message, self.snapshots)

    async def sent(self) -> Message:
        """The next message of the gateway."""
        message = await asyncio.wait_for(self.supervisor.receive(), SECONDS)
        assert message is not None
        return message

    async def close(self) -> None:
        self.supervisor.close()
        await asyncio.wait_for(self._following, SECONDS)
        self._channel.close()


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    one = Gateway(await Channel.open(ours), await Channel.open(theirs))
    yield one
    await one.close()


async def test_two_questions_at_the_same_time(gateway: Gateway) -> None:
    first = asyncio.create_task(gateway.others.ask("metrics"))
    one = await gateway.sent()
    second = asyncio.create_task(gateway.others.ask("live"))
    two = await gateway.sent()
    assert (one.kind, one.values["name"], two.values["name"]) == (Kind.COLLECT, "metrics", "live")

    gateway.supervisor.send(Kind.COLLECTED, question=two.values["question"], values=[2], silent=[])
    gateway.supervisor.send(
        Kind.COLLECTED, question=one.values["question"], values=[1, {"a": None}], silent=["gateway 3"]
    )
    assert await second == Answers([2])
    assert await first == Answers([1, {"a": None}], ("gateway 3",))


async def test_a_supervisor_that_does_not_answer(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COLLECT_SECONDS", 0.01)
    assert await gateway.others.ask("metrics") == Answers([], ("the supervisor",))
    late = await gateway.sent()
    monkeypatch.undo()

    asked = asyncio.create_task(gateway.others.ask("metrics"))
    question = (await gateway.sent()).values["question"]
    gateway.supervisor.send(Kind.COLLECTED, question=late.values["question"], values=["late"], silent=[])
    gateway.supervisor.send(Kind.COLLECTED, question=question, values=["in time"], silent=[])
    assert await asked == Answers(["in time"])


async def test_it_answers_with_its_own_figures(gateway: Gateway) -> None:
    async def awaited() -> str:
        return "later"

    gateway.snapshots.add("count", lambda: [1, 2])
    gateway.snapshots.add("awaited", awaited)
    gateway.supervisor.send(Kind.SNAPSHOT, question=5, name="count")
    assert await gateway.sent() == Message(Kind.VALUE, {"question": 5, "value": [1, 2]})
    gateway.supervisor.send(Kind.SNAPSHOT, question=6, name="awaited")
    assert await gateway.sent() == Message(Kind.VALUE, {"question": 6, "value": "later"})


@pytest.mark.parametrize("name", ["broken", "unknown", "not json"])
async def test_a_bug_in_what_makes_the_figures(
    gateway: Gateway, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.snapshots.add("broken", lambda: 1 / 0)
    gateway.snapshots.add("not json", object)
    gateway.supervisor.send(Kind.SNAPSHOT, question=5, name=name)
    assert await gateway.sent() == Message(Kind.VALUE, {"question": 5})
    assert f"the figures {name!r} could not be taken" in caplog.text
