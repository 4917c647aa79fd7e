"""How a gateway gets the figures of the others: it asks the supervisor, which asks them."""

import asyncio
import logging

from vipsrv.server.gateways.messages import Channel, Kind, Message
from vipsrv.server.ops.snapshots import Answers, Snapshots

COLLECT_SECONDS = 1.0
"""How long the supervisor may take: more than it waits for the gateways."""

_NO_SUPERVISOR = Answers([], ("the supervisor",))

_log = logging.getLogger(__name__)


class OtherGateways:
    """The other gateways of the server, behind the ``channel`` to the supervisor; see ``Peers``."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._asked: dict[int, asyncio.Future[Answers]] = {}  # by the number of the question
        self._questions = 0
        self._answering: set[asyncio.Task[None]] = set()

    async def ask(self, name: str) -> Answers:
        """Return the figures with this name of all that answer in time."""
        if not self._channel.is_read:  # or questions would pile up at a supervisor that is stuck
            return _NO_SUPERVISOR
        self._questions += 1
        question = self._questions
        answers: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        self._asked[question] = answers
        self._channel.send(Kind.COLLECT, question=question, name=name)
        try:
            async with asyncio.timeout(COLLECT_SECONDS):
                return await answers
        except TimeoutError:
            return _NO_SUPERVISOR
        finally:
            del self._asked[question]

    def handle(self, message: Message, snapshots: Snapshots) -> None:
        """Take an answer of the supervisor, or answer its question by the ``snapshots`` of this gateway."""
        values = message.values
        if message.kind is Kind.SNAPSHOT:
            task = asyncio.create_task(self._answer(values["question"], values["name"], snapshots))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        else:
            answers = self._asked.get(values["question"])
            if answers is not None and not answers.done():  # or it came too late
                answers.set_result(Answers(values["values"], tuple(values["silent"])))

    async def _answer(self, question: int, name: str, snapshots: Snapshots) -> None:
        try:
            self._channel.send(Kind.VALUE, question=question, value=await snapshots.take(name))
        except Exception:  # noqa: BLE001 - a bug in what makes the figures must not end the gateway
            _log.exception("the figures %r could not be taken", name)
            self._channel.send(Kind.VALUE, question=question)
