"""The bad network of the tests does what it says."""

import socket
import threading
from collections.abc import Iterator
from typing import Self

import pytest

from tests.support.bad_network import BadNetwork, Ending, Fault, cut_every
from tests.support.running_server import wait_until

SIZE = 1_000_000
DATA = bytes(range(250)) * (SIZE // 250)


class Sink:
    """A server that keeps what each connection brings, and how it ended; it answers ``!`` at the end."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.ended: list[tuple[bytes, str]] = []
        self.over = threading.Condition()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def wait_for(self, connections: int) -> list[tuple[bytes, str]]:
        """Return what the connections brought, in the order in which they ended."""
        with self.over:
            assert self.over.wait_for(lambda: len(self.ended) >= connections, 30)
            return list(self.ended)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        got, how = bytearray(), "end"
        with connection:
            try:
                while data := connection.recv(65536):
                    got += data
                connection.sendall(b"!")
            except ConnectionError:
                how = "reset"
        with self.over:
            self.ended.append((bytes(got), how))
            self.over.notify_all()


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as server:
        yield server


def send(port: int, data: bytes) -> bytes | str:
    """Send data and return the answer, or "reset"."""
    try:
        with socket.create_connection(("127.0.0.1", port), 30) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            return client.recv(10)
    except OSError:  # ENOTCONN is not a ConnectionError
        return "reset"


def test_a_connection_that_ends_in_an_orderly_way_is_closed(sink: Sink) -> None:
    with BadNetwork(sink.port) as network:
        assert send(network.port, DATA) == b"!"
        wait_until(lambda: not network.transports, "the network to close both sides")


def test_without_a_fault_all_passes(sink: Sink) -> None:
    with BadNetwork(sink.port) as network:
        assert send(network.port, DATA) == b"!"
        assert sink.wait_for(1) == [(DATA, "end")]
        assert (network.accepted, network.delivered, network.connections) == (SIZE, SIZE, 1)


@pytest.mark.parametrize(
    ("ending", "seen_by_server"),
    [(Ending.CUT, "end"), (Ending.RESET, "reset"), (Ending.STALL, "reset")],
)
def test_an_ending_comes_after_exactly_so_many_bytes(sink: Sink, ending: Ending, seen_by_server: str) -> None:
    fault = Fault(ending=ending, after=300_001, seconds=0.01)
    with BadNetwork(sink.port, lambda _: fault) as network:
        assert send(network.port, DATA) in {"reset", b""}
        ((got, how),) = sink.wait_for(1)
        assert how == seen_by_server
        assert got == DATA[:300_001]
        assert network.accepted == 300_001


def test_a_late_end_comes_after_the_next_connection(sink: Sink) -> None:
    def fault(number: int) -> Fault | None:
        late = Fault(ending=Ending.LATE, after=200_000, held=5_000, seconds=60)
        return late if number == 0 else None

    with BadNetwork(sink.port, fault) as network:
        assert send(network.port, DATA) == "reset"
        assert network.delivered == 195_000
        assert not sink.ended
        assert send(network.port, DATA) == b"!"
        assert sorted(sink.wait_for(2)) == sorted([(DATA[:200_000], "end"), (DATA, "end")])


def test_a_reply_that_does_not_arrive(sink: Sink) -> None:
    def fault(number: int) -> Fault:
        return Fault(ending=Ending.NO_REPLY, after=SIZE - 1 if number == 0 else 300_000)

    with BadNetwork(sink.port, fault) as network:
        assert send(network.port, DATA) == "reset"
        assert sink.wait_for(1)[0][0] == DATA
        assert send(network.port, DATA) == "reset"
        assert sink.wait_for(2)[1][0] == DATA[:600_000]


def test_a_server_that_does_not_listen_resets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with BadNetwork(port) as network:
        assert send(network.port, DATA) in {"reset", b""}


def test_the_same_seed_cuts_alike() -> None:
    one, other = cut_every(65536, seed=3), cut_every(65536, seed=3, limit=5)
    assert [one(number) for number in range(5)] == [other(number) for number in range(5)]
    assert {one(number) for number in range(5)} != {cut_every(65536, seed=4)(number) for number in range(5)}
    assert other(5) is None
