"""What ``/metrics`` says of a server after requests of all kinds, against what their clients have counted."""

import http.client
import os
import random
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.server.identity.records import add
from tests.support import bare_client
from tests.support.certificates import Lab
from tests.support.counting_clients import BinaryClient, HttpClient, Tally
from tests.support.images import encode, jpeg, photo
from tests.support.metrics_page import MetricsPage, Scrape
from tests.support.promtool import check_metrics
from tests.support.running_server import RunningServer, worker_pids
from vipsrv.client import Client
from vipsrv.protocol import Kind

QUEUE = 8
WORKERS = 2
MAX_UPLOAD = 200_000
REQUESTS = 200
"""About how many requests each of six connections sends in the first part: over 1,000 together."""

JPEG = jpeg()
PNG = encode(photo(64, 48), "PNG")
NO_IMAGE = b"this is no image, whatever it says about itself"
TOO_MANY_PIXELS = encode(photo(400, 300), "PNG")
MAX_PIXELS = 100_000
SMALL = {"width": 9, "height": 9}


@dataclass
class Service:
    """A server with listeners for both wires, with and without TLS, and what its clients have counted."""

    server: RunningServer
    page: MetricsPage
    tally: Tally
    tls: ssl.SSLContext
    ports: dict[str, int]

    def binary(self, *, tls: bool = False) -> BinaryClient:
        return BinaryClient(self.ports["tls" if tls else "plain"], self.tally, self.tls if tls else None)

    def http(self, *, tls: bool = False) -> HttpClient:
        return HttpClient(self.ports["https" if tls else "http"], self.tally, self.tls if tls else None)

    def version_1(self, body: bytes, *, status: int = 200, limit: str | None = None) -> None:
        self.tally.connected()
        with bare_client.connect(self.ports["plain"]) as sock:
            sock.sendall(bare_client.header(len(body), 20, 20) + body)
            answer = bare_client.read_answer(sock)
        if status == 200:
            self.tally.add(
                "v1",
                "resize",
                200,
                image=len(body),
                format_in="jpeg",
                outputs=(("jpeg", len(answer.result)),),
            )
        else:
            assert answer.error["status"] == status
            image = len(body) if status == 415 else 0
            self.tally.add("v1", "resize", status, image=image, limit=limit)


@contextmanager
def serving(folder: Path) -> Iterator[Service]:
    lab = Lab(folder)
    certificate, key = lab.server()
    arguments = (
        *("--workers", str(WORKERS), "--gateways", "1", "--queue", str(QUEUE)),
        *("--max-upload", str(MAX_UPLOAD), "--max-pixels", str(MAX_PIXELS)),
        *("--tls-cert", str(certificate), "--tls-key", str(key), "--ops-listen", "127.0.0.1:0"),
        *("--listen", "127.0.0.1:0", "--listen", "tls://127.0.0.1:0"),
        *("--listen", "http://127.0.0.1:0", "--listen", "https://127.0.0.1:0"),
    )
    with RunningServer(*arguments) as server:
        numbers = (int(one.rpartition(":")[2]) for one in server.listeners)
        ports = dict(zip(("plain", "tls", "http", "https"), numbers, strict=True))
        yield Service(server, MetricsPage(server), Tally(), lab.trusting(), ports)


def use_binary(service: Service, *, tls: bool) -> None:
    """All that one connection of version 2 may ask for without disturbing the others."""
    client = service.binary(tls=tls)
    for actions in _shuffled(
        [
            lambda: client.resize(JPEG),
            lambda: client.resize(PNG, format="webp"),
            lambda: client.resize(JPEG, outputs=[SMALL, SMALL]),
            lambda: client.resize(
                JPEG, outputs=[{"width": 9, "height": 9, "format": "png"}, {"width": 8, "height": 8}]
            ),
            lambda: client.info(PNG),
            lambda: client.resize(NO_IMAGE, status=415),
            lambda: client.resize(JPEG, status=400, width=0),
            lambda: client.resize(TOO_MANY_PIXELS, status=413, limit="image"),
            lambda: client.plain(Kind.PING, "ping"),
            lambda: client.plain(Kind.HELLO, "hello"),
            lambda: client.plain(Kind.CANCEL, "cancel", request_id=77),
            lambda: client.plain(Kind.CANCEL, "cancel", status=400),
            lambda: client.plain(77, "other", status=400),
        ]
    ):
        actions()
    client.resize(bytes(MAX_UPLOAD + 1), status=413, limit="max_upload")  # after which the server closes
    client.close()


def use_http(service: Service, *, tls: bool) -> None:
    """All that one connection of HTTP may ask for without disturbing the others."""
    client = service.http(tls=tls)
    for actions in _shuffled(
        [
            lambda: client.resize(JPEG, format_in="jpeg"),
            lambda: client.resize(PNG, "&format=webp", format_in="png"),
            lambda: client.resize(JPEG, "&format=png", format_in="jpeg", chunked=True),
            lambda: client.info(PNG, format_in="png"),
            lambda: client.get("/formats", 200, "page"),
            lambda: client.get("/nothing", 404, "other"),
            lambda: client.refused("/resize?width=20", NO_IMAGE, 415, "resize", arrives=True),
            lambda: client.refused(
                "/resize?width=20", TOO_MANY_PIXELS, 413, "resize", arrives=True, limit="image"
            ),
        ]
    ):
        actions()
    client.close()


def use_version_1(service: Service) -> None:
    for actions in _shuffled(
        [lambda: service.version_1(JPEG), lambda: service.version_1(NO_IMAGE, status=415)]
    ):
        actions()


def _shuffled(actions: list[Callable[[], None]]) -> list[Callable[[], None]]:
    chosen = actions * (REQUESTS // len(actions))
    random.Random(len(actions)).shuffle(chosen)
    return chosen


def run_together(*work: Callable[[], None]) -> None:
    """Run all at the same time, and raise what one of them raises."""
    errors: list[BaseException] = []

    def run(one: Callable[[], None]) -> None:
        try:
            one()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def stop_workers(service: Service) -> list[int]:
    pids = worker_pids(service.server.pid)
    assert len(pids) == WORKERS
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return pids


class FullQueue:
    """A server whose workers are stopped while they have a job each, and whose queue is full."""

    META: ClassVar[dict[str, Any]] = {"width": 20, "height": 20}

    def __init__(self, service: Service) -> None:
        self._service = service
        self._tally, self._page = service.tally, service.page
        self._stopped = stop_workers(service)
        self.running = [service.binary() for _ in range(WORKERS)]
        self.waiting = [service.binary() for _ in range(QUEUE - 2)]
        self.by_http = [service.http() for _ in range(2)]
        for client in self.running:
            client.send(Kind.RESIZE, 5, self.META, JPEG)
        self._wait_for_jobs(0)
        for client in self.waiting:
            client.send(Kind.RESIZE, 5, self.META, JPEG)
        for one in self.by_http:
            one.send("POST", "/resize?width=20&height=20", JPEG)
        self.found = self._wait_for_jobs(QUEUE)

    def _wait_for_jobs(self, waiting: int) -> Scrape:
        return self._page.wait_for(
            lambda found: (
                found.value("vipsrv_jobs_running", lane="light") == WORKERS
                and found.value("vipsrv_queue_length", lane="light") == waiting
            ),
            f"{waiting} jobs that wait",
        )

    def refuse(self) -> None:
        """Send further requests, which are refused."""
        client, by_http = self._service.binary(), self._service.http()
        for _ in range(5):
            client.resize(JPEG, status=429, limit="queue")
            self._service.version_1(JPEG, status=429, limit="queue")
        by_http.refused("/resize?width=20", JPEG, 429, "resize", limit="queue")
        client.close()
        by_http.close()

    def cancel(self) -> None:
        """Cancel a request that waits, over its connection."""
        client = self.waiting.pop()
        client.send(Kind.CANCEL, 6, {"request_id": 5})
        replies = [client.receive()[0] for _ in range(2)]
        assert {(head.request_id, head.status) for head in replies} == {(5, 499), (6, 200)}
        self._tally.add("v2", "resize", 499, image=len(JPEG))
        self._tally.add("v2", "cancel", 200)
        client.close()

    def disconnect(self) -> None:
        """Disconnect two clients that wait, and one that has sent a part of its image."""
        half = self._service.binary()
        half.send(Kind.RESIZE, 1, self.META, JPEG[:100], announced=len(JPEG))
        waiting = WORKERS + len(self.waiting) + len(self.by_http)
        self._wait_for_requests(waiting + 1)
        self.waiting.pop().close()
        self._tally.add("v2", "resize", 499, image=len(JPEG), lost=True)
        self.by_http.pop().close()
        self._tally.add("http", "resize", 499, image=len(JPEG), lost=True)
        half.reset()
        self._tally.add("v2", "resize", 499, lost=True)
        self._wait_for_requests(waiting - 2)

    def _wait_for_requests(self, number: int) -> None:
        self._page.wait_for(
            lambda found: found.value("vipsrv_in_flight_requests") == number, f"{number} requests in flight"
        )

    def be_late(self) -> None:
        """Send a request whose deadline ends while it waits."""
        client = self._service.binary()
        client.send(Kind.RESIZE, 7, {**self.META, "deadline_ms": 1}, JPEG)
        client.count(Kind.RESIZE, 504, len(JPEG), limit="deadline")
        client.close()

    def end(self) -> None:
        """Kill one of the workers that have a job, let the other one go on, and receive what is left."""
        killed, other = self._stopped
        os.kill(killed, signal.SIGKILL)
        self._tally.killed += 1
        self._page.wait_for(
            lambda found: found.value("vipsrv_requests_total", status="502") == self._tally.killed, "its end"
        )
        os.kill(other, signal.SIGCONT)
        statuses = [client.count_any(Kind.RESIZE, len(JPEG)) for client in self.running]
        assert sorted(statuses) == [200, 502]
        for client in self.waiting:
            client.count(Kind.RESIZE, 200, len(JPEG))
        for one in self.by_http:
            one.count_result(JPEG, "jpeg")
            one.close()
        for client in (*self.running, *self.waiting):
            client.close()


def ended(found: Scrape, tally: Tally) -> bool:
    """Whether the server has noticed the end of all that the clients have counted."""
    requests = found.value("vipsrv_requests_total")
    return requests >= sum(tally.requests.values()) and not found.value("vipsrv_connections")


def test_every_counter_is_what_the_clients_have_counted(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        tally, page = service.tally, service.page
        run_together(
            *(lambda tls=tls: use_binary(service, tls=tls) for tls in (False, True)),
            *(lambda tls=tls: use_http(service, tls=tls) for tls in (False, False, True)),
            lambda: use_version_1(service),
        )
        for _ in range(3):
            full = FullQueue(service)
            assert full.found.value("vipsrv_in_flight_requests") == WORKERS + QUEUE
            assert full.found.value("vipsrv_in_flight_bytes") == (WORKERS + QUEUE) * len(JPEG)
            assert full.found.value("vipsrv_workers", state="busy") == WORKERS
            assert full.found.value("vipsrv_spool_bytes", store="memory") >= (WORKERS + QUEUE) * len(JPEG)
            full.refuse()
            full.cancel()  # which makes room
            full.disconnect()
            full.be_late()
            full.end()
            page.wait_for(
                lambda found: found.value("vipsrv_workers", state="idle") == WORKERS, "all workers again"
            )
        found = page.wait_for(lambda found: ended(found, tally), "the end of all requests")
        text = page.text()

    names = ("kind", "status", "protocol", "identity", "format_in", "format_out")
    assert found.by("vipsrv_requests_total", *names) == tally.requests
    assert sum(count for labels, count in tally.requests.items() if labels[2].startswith("http")) > 400
    assert sum(tally.requests.values()) > 1000
    assert found.by("vipsrv_requests_lost_total", "status") == tally.lost
    assert found.by("vipsrv_results_total", "format") == tally.results
    assert found.by("vipsrv_upload_bytes_total", "protocol", "format") == tally.uploaded
    assert found.by("vipsrv_result_bytes_total", "protocol", "format") == tally.sent
    assert found.by("vipsrv_limits_hit_total", "limit") == tally.limits

    assert found.by("vipsrv_request_seconds_count", "kind") == tally.arrived
    stages = found.by("vipsrv_stage_seconds_count", "stage", "kind")
    for (kind,), count in tally.arrived.items():
        assert stages["receive", kind] == count
        assert stages["send", kind] == tally.replied[kind,]
    assert found.value("vipsrv_compression_ratio_count") == len(tally.ratios)
    assert found.value("vipsrv_compression_ratio_sum") == pytest.approx(sum(tally.ratios))

    assert found.by("vipsrv_worker_restarts_total", "reason") == {("crashed",): tally.killed}
    assert found.value("vipsrv_connections_opened_total") == tally.connections
    assert found.value("vipsrv_jobs_total") >= len(tally.ratios)
    for nothing in (
        "vipsrv_in_flight_requests",
        "vipsrv_in_flight_bytes",
        "vipsrv_queue_length",
        "vipsrv_jobs_running",
        "vipsrv_spool_bytes",
        "vipsrv_connections_refused_total",
        "vipsrv_tls_handshake_failures_total",
    ):
        assert found.value(nothing) == 0, nothing
    assert Scrape(text).value("vipsrv_build_info") == 1
    check_metrics(text)


def test_requests_with_a_token_and_without(tmp_path: Path) -> None:
    token = add(tmp_path / "tokens.toml", "shop").text
    arguments = (
        *("--workers", "1", "--gateways", "1", "--tokens", str(tmp_path / "tokens.toml")),
        *("--listen", "127.0.0.1:0", "--listen", "http://127.0.0.1:0", "--ops-listen", "127.0.0.1:0"),
    )
    with RunningServer(*arguments) as server:
        with Client(server.host, server.port, token=token) as client:
            client.resize(JPEG, width=20, height=20)
        by_http = http.client.HTTPConnection(server.listeners[1].removeprefix("http://"))
        for header, status in ((f"Bearer {token}", 200), ("Bearer wrong", 401)):
            by_http.request("POST", "/resize?width=20", JPEG, {"Authorization": header})
            reply = by_http.getresponse()
            reply.read()
            assert reply.status == status
        by_http.close()
        found = MetricsPage(server).wait_for(
            lambda found: found.value("vipsrv_requests_total") == 4, "all requests"
        )
    assert found.by("vipsrv_requests_total", "status", "protocol", "identity") == {
        ("200", "v2", "token"): 2,  # with the HELLO
        ("200", "http", "token"): 1,
        ("401", "http", "none"): 1,
    }


def test_requests_with_a_certificate(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    certificate, key = lab.server()
    arguments = (
        *("--workers", "1", "--gateways", "1", "--tls-client-ca", str(lab.ca)),
        *("--tls-cert", str(certificate), "--tls-key", str(key), "--ops-listen", "127.0.0.1:0"),
        *("--listen", "tls://127.0.0.1:0", "--listen", "https://127.0.0.1:0"),
    )
    with RunningServer(*arguments) as server:
        ports = [int(one.rpartition(":")[2]) for one in server.listeners]
        tls, tally = lab.trusting(client=lab.client("shop")), Tally()
        clients = BinaryClient(ports[0], tally, tls), HttpClient(ports[1], tally, tls)
        clients[0].resize(JPEG)
        clients[1].resize(JPEG, format_in="jpeg")
        for client in clients:
            client.close()
        found = MetricsPage(server).wait_for(
            lambda found: found.value("vipsrv_requests_total") == 2, "both requests"
        )
    assert found.by("vipsrv_requests_total", "status", "protocol", "identity") == {
        ("200", "v2+tls", "certificate"): 1,
        ("200", "http+tls", "certificate"): 1,
    }
    days = (found.value("vipsrv_tls_certificate_expiry_timestamp_seconds") - time.time()) / 86_400
    assert days == pytest.approx(30, abs=1)
