"""Clients that stall, lie or vanish, and workers that die: who suffers, and who does not."""

import os
import random
import select
import signal
import socket
import struct
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.support import bare_client
from tests.support.image_comparison import open_exact
from tests.support.images import jpeg
from tests.support.running_server import RunningServer, worker_pids

RECEIVE_TIMEOUT = "0.5"
IDLE_TIMEOUT = "0.5"


@pytest.fixture
def impatient(start_server: StartServer) -> RunningServer:
    return start_server(
        "--workers", "1", "--receive-timeout", RECEIVE_TIMEOUT, "--idle-timeout", IDLE_TIMEOUT
    )


def assert_serves(server: RunningServer) -> None:
    assert open_exact(bare_client.ask(server.port, jpeg(), 64, 48).result).size == (64, 48)


def test_a_client_that_sends_nothing_is_closed(impatient: RunningServer) -> None:
    with bare_client.connect(impatient.port) as sock:
        assert_serves(impatient)
        assert bare_client.read_to_end(sock) == b""


@pytest.mark.parametrize("sent", [b"\0", bare_client.header(1000)[:7]], ids=["a byte", "half a header"])
def test_half_a_header_is_answered_and_closed(impatient: RunningServer, sent: bytes) -> None:
    with bare_client.connect(impatient.port) as sock:
        sock.sendall(sent)
        assert_serves(impatient)
        assert bare_client.read_answer(sock).error["status"] == 408


def test_half_an_image_is_answered_and_closed(impatient: RunningServer) -> None:
    image = jpeg()
    with bare_client.connect(impatient.port) as sock:
        sock.sendall(bare_client.header(len(image)) + image[:-1])
        assert_serves(impatient)
        assert bare_client.read_answer(sock).error["status"] == 408


def test_a_large_image_that_stalls_is_answered_and_its_file_freed(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(
        "--workers", "1", "--receive-timeout", RECEIVE_TIMEOUT, "--spool-dir", str(tmp_path)
    )
    with bare_client.connect(server.port) as sock:
        sock.sendall(bare_client.header(100_000_000) + bytes(20_000_000))
        assert bare_client.read_answer(sock).error["status"] == 408
    assert_serves(server)
    assert not [link for link in open_files(server.pid) if link.startswith(str(tmp_path))]


def test_a_stream_that_ends_within_the_image_is_refused(server: RunningServer) -> None:
    with bare_client.connect(server.port) as sock:
        sock.sendall(bare_client.header(1000) + b"x" * 999)
        sock.shutdown(socket.SHUT_WR)
        error = bare_client.read_answer(sock).error
    assert error["status"] == 400
    assert "1 bytes" in error["message"]


def test_a_client_that_closes_within_its_reply_harms_nobody(server: RunningServer) -> None:
    image = jpeg()
    for _ in range(5):
        with bare_client.connect(server.port) as sock:
            sock.sendall(bare_client.header(len(image), 2000, 2000) + image)
            sock.recv(10)
            reset_on_close(sock)
    assert_serves(server)


def test_a_client_that_does_not_take_its_reply_is_dropped(start_server: StartServer, tmp_path: Path) -> None:
    # A unix socket, for the kernel would take megabytes for a TCP client that reads nothing.
    path = tmp_path / "socket"
    server = start_server("--workers", "1", "--receive-timeout", RECEIVE_TIMEOUT, "--listen", f"unix:{path}")
    image = jpeg()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(bare_client.SECONDS)
        sock.connect(str(path))
        sock.sendall(bare_client.header(len(image), 6000, 6000) + image)
        server.wait_for_log("did not read its reply")
        (size,) = struct.unpack("!I", bare_client.read_exactly(sock, 4))
        assert len(bare_client.read_to_end(sock)) < size


def test_a_client_that_leaves_frees_its_worker(start_server: StartServer) -> None:
    """A job of many seconds is given up when its client resets the connection."""
    server = start_server("--workers", "1", "--max-output-pixels", "1000000000")
    image = jpeg()
    with bare_client.connect(server.port) as sock:
        sock.sendall(bare_client.header(len(image), 30_000, 30_000) + image)
        server.wait_until_busy()
        reset_on_close(sock)
    assert_serves(server)
    server.wait_for_log('"error":"the client disconnected"')
    assert server.log.count('"status":499') == 1


def test_a_deadline_ends_a_job(start_server: StartServer) -> None:
    server = start_server("--workers", "1", "--deadline", "0.1")
    assert bare_client.ask(server.port, jpeg(), 9_000, 9_000).error["status"] == 504
    assert_serves(server)


def test_a_full_queue_says_busy_and_when_to_try_again(start_server: StartServer) -> None:
    server = start_server("--workers", "1", "--queue", "0", "--max-output-pixels", "1000000000")
    image = jpeg()
    with bare_client.connect(server.port) as sock:
        sock.sendall(bare_client.header(len(image), 30_000, 30_000) + image)
        server.wait_until_busy()
        error = bare_client.ask(server.port, image).error
        reset_on_close(sock)
    assert error["status"] == 429
    assert error["retryable"] is True
    assert error["retry_after_ms"] > 0


def test_an_excess_connection_is_told_busy(start_server: StartServer) -> None:
    server = start_server("--workers", "1", "--connections-per-client", "2")
    held = [bare_client.connect(server.port) for _ in range(2)]
    for sock in held:  # not idle any more, else they would give way
        sock.sendall(bare_client.header(3))
    with bare_client.connect(server.port) as sock:
        assert bare_client.read_answer(sock).error["status"] == 429
    for sock in held:
        sock.sendall(b"xyz")
        assert bare_client.read_answer(sock).error["status"] == 415
        sock.close()
    assert_serves(server)


def test_a_full_spool_says_busy(start_server: StartServer) -> None:
    server = start_server("--workers", "1", "--spool-disk", "1MB")
    assert bare_client.ask(server.port, bytes(10_000_000)).error["status"] == 429
    assert_serves(server)


def test_memory_that_is_used_up_turns_into_files(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--workers", "1", "--spool-memory", "1MiB", "--spool-dir", str(tmp_path))
    image = jpeg() + bytes(3_000_000)  # what follows the end of a JPEG is not looked at
    held = [bare_client.connect(server.port) for _ in range(4)]
    try:
        for sock in held:
            sock.sendall(bare_client.header(len(image), 64, 48) + image[:-1])
        for sock in held:
            sock.sendall(image[-1:])
            assert open_exact(bare_client.read_answer(sock).result).size == (64, 48)
    finally:
        for sock in held:
            sock.close()


def test_two_hundred_connections_while_workers_are_killed(start_server: StartServer) -> None:
    """Every reply is right or, for what a killed worker held, a 502; none is lost."""
    server = start_server("--workers", "2", "--log-level", "error")
    sizes = [(320, 240), (1000, 700), (64, 64)]
    images = {size: jpeg(*size, seed=number) for number, size in enumerate(sizes)}
    kills = 0
    chance = random.Random(1)

    def one(number: int) -> int:
        width, height = 40 + number % 50, 30 + number % 40
        answer = bare_client.ask(server.port, images[sizes[number % len(sizes)]], width, height)
        if not answer.size:
            return int(answer.error["status"])
        assert open_exact(answer.result).size == (width, height)
        return 200

    with ThreadPoolExecutor(200) as clients:
        replies = [clients.submit(one, number) for number in range(1200)]
        for done, _ in enumerate(as_completed(replies), start=1):
            pids = worker_pids(server.pid)
            if done % 100 == 0 and pids:
                os.kill(chance.choice(pids), signal.SIGKILL)
                kills += 1
        statuses = Counter(reply.result() for reply in replies)

    assert set(statuses) <= {200, 502}
    assert kills > 0
    assert statuses[502] <= kills
    assert_serves(server)


def test_a_dead_worker_costs_its_request_and_is_replaced(start_server: StartServer) -> None:
    server = start_server("--workers", "1", "--max-output-pixels", "1000000000")
    (worker,) = worker_pids(server.pid)
    image = jpeg()
    with bare_client.connect(server.port) as sock:
        sock.sendall(bare_client.header(len(image), 30_000, 30_000) + image)
        server.wait_until_busy()
        os.kill(worker, signal.SIGSEGV)
        error = bare_client.read_answer(sock).error
    assert (error["status"], error["code"]) == (502, "worker_died")
    assert_serves(server)
    assert worker_pids(server.pid) != [worker]
    server.wait_for_log(f"worker {worker} ended: it was killed by SIGSEGV")


def test_workers_die_with_their_gateway(start_server: StartServer) -> None:
    server = start_server("--workers", "2")
    pids = worker_pids(server.pid)
    handles = [os.pidfd_open(pid) for pid in pids]
    server.process.kill()
    for handle in handles:
        wait_readable(handle)
        os.close(handle)


def reset_on_close(sock: socket.socket) -> None:
    """Close with a reset, which a server sees at once."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def open_files(pid: int) -> list[str]:
    return [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]


def wait_readable(descriptor: int) -> None:
    assert select.select([descriptor], [], [], bare_client.SECONDS)[0]
