"""The command that mutates: the same inputs for the same seed, and what it counts as a fault."""

import random
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuzz.mutations import mutated, with_right_checksums
from tests.pipeline.run import sample
from tests.support.running_server import RunningServer
from vipsrv.errors import ProtocolError
from vipsrv.protocol import Kind, pack_message

pytest.importorskip("psutil", reason="the command measures with the benchmarks' tools")

from fuzz import mutate


def test_the_same_dice_give_the_same_changes() -> None:
    data, others = sample("png"), [sample("jpeg"), sample("gif")]
    made = [mutated(data, others, random.Random(f"{number}")) for number in range(40)]
    assert made == [mutated(data, others, random.Random(f"{number}")) for number in range(40)]
    assert len(set(made)) > 30
    assert mutated(b"", others, random.Random(1)) == b""


def test_checksums_are_made_right() -> None:
    data = bytearray(sample("png"))
    at = data.index(b"IHDR")
    data[at + 4 + 8 : at + 4 + 9] = b"\x04"
    assert with_right_checksums(sample("png")) == sample("png")
    right = with_right_checksums(bytes(data))
    assert right != bytes(data)
    assert with_right_checksums(right) == right
    assert with_right_checksums(right[:50])[:33] == right[:33]


@contextmanager
def replying(reply: bytes) -> Iterator[int]:
    """A server on this port that answers one connection with these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while connection.recv(1 << 16):
                    pass
                connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_valid_replies_are_counted_by_their_status() -> None:
    pong = pack_message(Kind.PING | 0x80, 1, status=200)
    busy = pack_message(Kind.PING | 0x80, 2, {"code": "busy", "message": "later"}, status=429)
    with replying(pong + busy + pong) as port:
        assert mutate.exchange(port, b"anything") == "200, 429"
    with replying(b"") as port:
        assert mutate.exchange(port, b"anything") == "no reply"


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (b"VIPX garbage that is no message", ProtocolError),
        (pack_message(Kind.PING | 0x80, 1, status=200)[:-1], ProtocolError),
        (
            pack_message(Kind.RESIZE | 0x80, 1, {"code": "internal", "message": "a bug"}, status=500),
            AssertionError,
        ),
        (
            pack_message(Kind.RESIZE | 0x80, 1, {"code": "worker_died", "message": "x"}, status=502),
            AssertionError,
        ),
    ],
)
def test_a_broken_reply_or_a_fault_of_the_server_is_a_fault(reply: bytes, fault: type[Exception]) -> None:
    with replying(reply) as port, pytest.raises(fault):
        mutate.exchange(port, b"anything")


def test_a_short_run_against_a_real_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = ["--messages", "60", "--http", "60", "--images", "40"]
    monkeypatch.setattr(sys, "argv", ["mutate", *numbers, "--seed", "7"])
    assert mutate.main() == 0
    told = capsys.readouterr().out
    assert "0 faults" in told
    assert "workers lost: 0" in told
    assert sum(int(line.split()[0]) for line in told.splitlines() if " images: " in line) == 40
    assert sum(int(line.split()[0]) for line in told.splitlines() if " messages: " in line) == 60
    assert sum(int(line.split()[0]) for line in told.splitlines() if " http: " in line) == 60


@pytest.mark.parametrize(
    "reply",
    [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfour", b"HTTP/1.1 200 OK\r\nA b: c\r\n\r\n"],
    ids=["no reply", "cut", "bad field"],
)
def test_what_is_no_reply_of_http_is_a_fault(reply: bytes) -> None:
    with replying(reply) as port, pytest.raises(ValueError, match="reply"):
        mutate.exchange_http(port, b"anything")


def test_an_internal_error_over_http_is_a_fault() -> None:
    with replying(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n") as port, pytest.raises(AssertionError):
        mutate.exchange_http(port, b"anything")


def test_what_a_run_finds_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mutate, "_FOUND", tmp_path)
    found = mutate.Findings()
    found.fault("3.50 s of CPU", "image-1-2", b"slow")
    assert found.faults == [f"3.50 s of CPU: {tmp_path}/mutate-image-1-2"]
    assert (tmp_path / "mutate-image-1-2").read_bytes() == b"slow"


def test_a_worker_above_its_memory_is_noticed() -> None:
    noticed = threading.Event()
    with RunningServer("--workers", "1") as server:
        with mutate.MemoryWatch(server, -1, lambda _: noticed.set()) as memory:
            assert noticed.wait(60)
        assert memory.biggest >= 0


def test_a_worker_that_is_ended_because_of_a_cancelled_job_has_not_died() -> None:
    died = '{"event":"worker 7 ended: it was killed by SIGSEGV"}'
    stopped = '{"event":"worker 8 ended: it did not stop its job within 1 s of being told to"}'
    assert mutate.ends_of_workers(f"{stopped}\nready\n{died}\n{stopped}\n") == ([died], 2)
