"""What /livez and /readyz say about servers in all conditions."""

import asyncio
import json
from inspect import isawaitable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.server.fakes import FakeClock
from tests.server.ops.test_canary import Queue
from vipsrv.errors import Draining
from vipsrv.server.http.messages import HttpRequest, HttpResponse
from vipsrv.server.ops.canary import Canary, CanaryReport, CanaryState
from vipsrv.server.ops.health import FRESH_SECONDS, READINESS, Health, health_pages
from vipsrv.server.ops.snapshots import Answers, Snapshots
from vipsrv.workers.process import WorkerState


class Pool:
    """Workers in states that a test chooses."""

    def __init__(self, *states: WorkerState) -> None:
        self.workers: Any = [SimpleNamespace(state=state) for state in states]
        self.size = len(states)
        self.gone = ""

    def check_ready(self) -> None:
        if self.gone:
            raise Draining(self.gone)


class PlayedCanary(Canary):
    """A canary that reports what a test chooses."""

    def __init__(self, state: CanaryState, detail: str = "of the canary") -> None:
        super().__init__(Queue(), formats=lambda: ((), ()), deadline=lambda: 1.0)
        self.known = CanaryReport(state, detail)
        self.asked = 0

    async def report(self, patience: float = 0) -> CanaryReport:  # noqa: ARG002 - it never waits
        self.asked += 1
        return self.known


class Peers:
    def __init__(self, answers: Answers) -> None:
        self.answers = answers

    async def ask(self, name: str) -> Answers:
        assert name == READINESS
        return self.answers


class Server:
    """A gateway, ready by default, and its pages."""

    def __init__(self, peers: Answers | None = None) -> None:
        self.service = SimpleNamespace(withdrawn=False, draining=False, has_successor=False)
        self.pool = Pool(WorkerState.IDLE, WorkerState.BUSY)
        self.canary = PlayedCanary(CanaryState.PASSING)
        self.snapshots = Snapshots(None if peers is None else Peers(peers))
        self.clock = FakeClock()
        self.health = Health(self.service, self.pool, self.canary, self.snapshots, self.clock)
        self.health.has_started = True
        self.pages = health_pages(self.health)

    async def get(self, path: str, query: str = "", **fields: str) -> HttpResponse:
        request = HttpRequest(
            method="GET", path=path, query=query, fields=fields, body_size=0, peer=None, tls=False
        )
        answer = self.pages[path].answer(request)
        response = await answer if isawaitable(answer) else answer
        assert isinstance(response, HttpResponse)
        assert ("Cache-Control", "no-store") in response.headers
        return response

    async def text(self, query: str = "") -> tuple[int, str]:
        self.clock.now += FRESH_SECONDS
        response = await self.get("/readyz", query)
        assert ("Content-Type", "text/plain; charset=utf-8") in response.headers
        return response.status, response.body.decode()


@pytest.fixture
def server() -> Server:
    return Server()


async def test_a_ready_server(server: Server) -> None:
    assert await server.text() == (200, "ready\n")


async def test_starting(server: Server) -> None:
    server.health.has_started = False
    assert await server.text() == (503, "not ready: the server is starting\n")
    assert (await server.get("/livez")).status == 200


async def test_a_good_answer_is_given_again_for_a_second(server: Server) -> None:
    await server.text()
    assert (await server.get("/readyz")).status == 200
    assert server.canary.asked == 1
    server.service.draining = True
    assert (await server.get("/readyz")).status == 503


async def test_all_who_ask_at_the_same_time_get_one_answer(server: Server) -> None:
    server.canary.known = CanaryReport(CanaryState.LATE, "it is late")
    replies = await asyncio.gather(*(server.get("/readyz") for _ in range(3)))
    assert [reply.status for reply in replies] == [503] * 3
    assert server.canary.asked == 1
    await server.get("/readyz")
    assert server.canary.asked == 2, "a bad answer is not given again"


async def test_draining(server: Server) -> None:
    server.service.draining = True
    assert await server.text() == (503, "not ready: the server is draining: it stops\n")


async def test_readiness_does_not_flap_when_another_server_takes_over(server: Server) -> None:
    server.service.draining = server.service.has_successor = True
    assert await server.text("verbose") == (
        200,
        "[+] serving: another server has taken the place of this one\nready\n",
    )
    assert server.canary.asked == 0
    assert not server.canary.asked, "a canary would keep a worker from finishing"


async def test_without_workers(server: Server) -> None:
    server.pool.gone = "no worker has been ready for 7 s"
    assert await server.text() == (503, "not ready: no worker has been ready for 7 s\n")
    assert not server.canary.asked, "it would only wait"


@pytest.mark.parametrize("state", [CanaryState.LATE, CanaryState.FAILING, CanaryState.UNKNOWN], ids=str)
async def test_without_a_passing_canary(server: Server, state: CanaryState) -> None:
    server.canary.known = CanaryReport(state, "worker 7 has had it for 6 s")
    assert await server.text() == (503, "not ready: worker 7 has had it for 6 s\n")


async def test_verbose(server: Server) -> None:
    server.pool.workers[0].state = WorkerState.STARTING
    server.canary.known = CanaryReport(CanaryState.LATE, "it is late")
    assert await server.text("verbose") == (
        503,
        (
            "[+] serving: requests are accepted\n"
            "[+] workers: 1 of 2 workers are ready\n"
            "[-] canary: it is late\n"
            "not ready: it is late\n"
        ),
    )


async def test_json(server: Server) -> None:
    response = await server.get("/readyz", accept="text/plain;q=0.1, Application/JSON; q=0.9")
    assert ("Content-Type", "application/json") in response.headers
    assert ("Vary", "Accept") in response.headers
    assert json.loads(response.body) == {
        "ready": True,
        "reason": "",
        "gateways": {"ready": 1, "total": 1},
        "checks": [
            {"name": "serving", "ok": True, "detail": "requests are accepted"},
            {"name": "workers", "ok": True, "detail": "2 of 2 workers are ready"},
            {"name": "canary", "ok": True, "detail": "of the canary"},
        ],
    }
    server.canary.known = CanaryReport(CanaryState.LATE, "it is late")
    server.clock.now += FRESH_SECONDS
    response = await server.get("/readyz", accept="application/json")
    assert response.status == 503
    assert json.loads(response.body)["reason"] == "it is late"


async def test_a_change_is_logged_once(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "vipsrv.server.ops.health")
    for state in (CanaryState.PASSING, CanaryState.LATE, CanaryState.LATE, CanaryState.PASSING):
        server.canary.known = CanaryReport(state, "it is late")
        await server.text()
    assert [one.message for one in caplog.records] == [
        "the server is not ready: it is late",
        "the server is ready again",
    ]


@pytest.mark.parametrize(
    ("own", "answers", "status", "text"),
    [
        (True, Answers([True, True]), 200, "ready\n"),
        (True, Answers([False, True]), 200, "ready: 2 of 3 gateways are ready\n"),
        (True, Answers([True], ("gateway 3",)), 200, "ready: 2 of 3 gateways are ready\n"),
        (False, Answers([True]), 200, "ready: 1 of 2 gateways are ready; of the canary\n"),
        (False, Answers([False]), 503, "not ready: 0 of 2 gateways are ready; of the canary\n"),
        (False, Answers([], ("gateway 2",)), 503, "not ready: 0 of 2 gateways are ready; of the canary\n"),
    ],
)
async def test_one_ready_gateway_of_several_is_enough(
    own: bool,  # noqa: FBT001 - a parameter of a test
    answers: Answers,
    status: int,
    text: str,
) -> None:
    server = Server(answers)
    if not own:
        server.canary.known = CanaryReport(CanaryState.LATE, "of the canary")
    assert await server.text() == (status, text)


async def test_what_another_gateway_is_told(server: Server) -> None:
    assert await server.snapshots.take(READINESS) is True
    server.canary.known = CanaryReport(CanaryState.LATE, "it is late")
    assert await server.snapshots.take(READINESS) is False


async def test_a_server_is_alive_whatever_its_workers_do(server: Server) -> None:
    server.pool.gone = "no worker"
    server.service.draining = True
    assert (await server.get("/livez")).status == 200
    assert (await server.get("/livez")).body == b"alive\n"
    assert (await server.get("/livez", "verbose")).body == b"[+] event loop: it answers\nalive\n"
    assert json.loads((await server.get("/livez", accept="application/json")).body) == {"alive": True}


def test_the_pages_are_known_by_their_paths(server: Server) -> None:
    assert set(server.pages) == {"/livez", "/readyz"}
    assert all("GET" in page.methods for page in server.pages.values())
